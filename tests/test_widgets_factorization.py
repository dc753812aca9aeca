"""The lab on matrix decompositions shows what the room's ideas compute."""

import pytest
import torch
from networks import draw

from pd_helpers.course.matrix_decomposition import ideas as fz
from pd_helpers.widgets import TermsLab


def test_the_lab_follows_method_and_number():
    W = draw(2, 5)
    lab = TermsLab(W)
    truth = {
        "singular vectors": lambda n: fz.svd_terms(W, n),
        "non-negative factors": lambda n: fz.nmf_terms(W, n),
        "one term for each arrow": lambda n: fz.one_term_each(W, n)[0],
        "random directions": lambda n: fz.overcomplete(W, n, torch.Generator().manual_seed(0)),
    }
    for method in TermsLab.METHODS:
        lab.method.value = method
        for n in (1, 3, 5):
            lab.n_terms.value = n
            terms = truth[method](n)
            torch.testing.assert_close(lab.values.terms, terms)
            missing = (W - terms.sum(dim=0)).square().sum() / W.square().sum()
            assert lab.values.left_over == pytest.approx(missing.item(), abs=1e-12)
            used = (terms.norm(dim=1) > 0.01 * W.norm(dim=0)).double().sum(dim=0).mean()
            assert lab.values.terms_used == pytest.approx(used.item())
            shares = torch.einsum("cij,ij->cj", terms, W) / W.square().sum(dim=0)
            torch.testing.assert_close(lab.values.shares, shares)
    assert lab.alt.startswith("Random directions, 5 in number: 0.0% of")


def test_only_arrows_in_a_plane():
    with pytest.raises(ValueError, match=r"\(2, n\) matrix"):
        TermsLab(draw(3, 5))
