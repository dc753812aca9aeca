"""Classical factorisations: what they promise, on random matrices and on the five arrows."""

from itertools import pairwise

import pytest
import torch
from networks import SHARP, draw

from pd_helpers.course.matrix_decomposition import ideas as fz


def test_svd_terms_add_up_and_are_the_closest():
    W = draw(3, 6)
    torch.testing.assert_close(fz.svd_terms(W).sum(dim=0), W, **SHARP)
    sigma = torch.linalg.svdvals(W).square()
    for n in (1, 2, 3):
        assert fz.left_over(fz.svd_terms(W, n), W) == pytest.approx((sigma[n:].sum() / sigma.sum()).item(), abs=1e-12)


def test_nmf_finds_a_sum_that_is_there():
    u, v = torch.tensor([[1.0, -2.0], [0.5, 1.0]]).double(), draw(2, 7).abs()
    terms = fz.nmf_terms(u[:, :1] * v[:1], 1)  # rank one
    assert fz.left_over(terms, u[:, :1] * v[:1]) < 1e-8
    assert fz.nmf_terms(draw(2, 7), 3).shape == (3, 2, 7)


def test_overcomplete_sums_are_exact_from_the_rank_on_and_all_different():
    W = draw(2, 5)
    sums = [fz.overcomplete(W, 5, torch.Generator().manual_seed(seed)) for seed in range(3)]
    for terms in sums:
        torch.testing.assert_close(terms.sum(dim=0), W, **SHARP)
        assert (torch.linalg.matrix_rank(terms) == 1).all()
    assert (sums[0] - sums[1]).abs().max() > 0.1
    assert fz.left_over(fz.overcomplete(W, 1, torch.Generator().manual_seed(0)), W) > 0.01


def test_one_term_each_by_hand():
    W = torch.tensor([[1.0, 3.0, 0.0], [0.0, 0.0, 2.0]]).double()  # two on one line, one across
    terms, groups = fz.one_term_each(W, 2)
    assert groups == ((0, 1), (2,))
    torch.testing.assert_close(terms.sum(dim=0), W, **SHARP)
    terms, groups = fz.one_term_each(W, 1)
    assert fz.left_over(terms, W) == pytest.approx(4 / 14)
    terms, groups = fz.one_term_each(W, 3)
    assert (terms - torch.einsum("ij,cj->cij", W, torch.eye(3).double())).abs().max() < 1e-12


def test_terms_used_by_hand():
    W = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double()
    terms = torch.stack([0.25 * W, 0.75 * W * torch.tensor([[1.0, 0.0]]), 0.75 * W * torch.tensor([[0.0, 1.0]])])
    assert fz.terms_used(terms, W).tolist() == [2, 2]
    assert fz.terms_used(terms, W, tolerance=0.5).tolist() == [1, 1]


def test_five_arrows_need_five_terms_if_each_is_to_have_one():
    W = fz.five_arrows()
    assert W.shape == (2, 5)
    left = [fz.left_over(fz.one_term_each(W, n)[0], W) for n in range(1, 6)]
    assert all(more > fewer for more, fewer in pairwise(left))
    assert left[3] > 0.01
    assert left[4] == pytest.approx(0, abs=1e-20)
    assert fz.left_over(fz.svd_terms(W, 2), W) == pytest.approx(0, abs=1e-20)
