"""The lab on matrix decompositions shows what the core computes."""

import pytest
import torch
from networks import draw

from pd_helpers import factorization as fz
from pd_helpers.widgets import TermsLab


def readout(lab, name):
    return lab._numbers.value.split(f'pdh-{name}">')[1].split("<")[0]


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
            assert readout(lab, "left") == f"{fz.left_over(terms, W):.1%}"
            assert readout(lab, "used") == f"{fz.terms_used(terms, W).mean():.1f}"
            assert method in lab.alt.lower()


def test_only_arrows_in_a_plane():
    with pytest.raises(ValueError, match=r"\(2, n\) matrix"):
        TermsLab(draw(3, 5))
