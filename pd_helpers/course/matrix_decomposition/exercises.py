"""Exercises on matrix decompositions (notebook 01)."""

import torch
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws
from pd_helpers.course.matrix_decomposition import ideas as fz


def _svd(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.linalg.svd(W, full_matrices=False)


def _terms() -> list[tuple[Tensor, float]]:
    """Terms with tolerances; in the first, one column is exactly as long as the tolerance."""
    shapes = [((5, 2, 5), (5, 1, 5)), ((3, 3, 4), (3, 1, 4)), ((4, 1, 6), (4, 1, 6))]
    random = [(P * (mask > 0), tolerance) for (P, mask), tolerance in zip(draws(*shapes), (0.5, 1.0, 0.3), strict=True)]
    return [(torch.tensor([[[3.0, 6.0], [-4.0, 0.0]], [[0.0, 1.0], [0.0, 8.0]]]), 5.0), *random]


svd_terms = Check(
    "svd_terms",
    fz.svd_terms,
    lambda: [(torch.tensor([[1.0, 2.0], [2.0, 1.0]]),), *draws([(2, 5)], [(4, 3)], [(3, 3)])],
    {
        "the singular values are missing: each term is σ u vᵀ.": lambda W: torch.einsum(
            "ic,cj->cij", _svd(W).U, _svd(W).Vh
        ),
        "each term must carry its own σ once; you have the square.": lambda W: torch.einsum(
            "ic,c,cj->cij", _svd(W).U, _svd(W).S.square(), _svd(W).Vh
        ),
        "you split W into its rows; their directions are those of the axes, not of W.": lambda W: torch.einsum(
            "ci,ij->cij", torch.eye(len(W)), W
        ),
        "torch.linalg.svd returns vᵀ, whose rows are the directions; you took its columns.": lambda W: torch.einsum(
            "ic,c,jc->cij", _svd(W).U, _svd(W).S, _svd(W).Vh
        ),
        "the terms are in the wrong order: the one with the largest σ comes first.": lambda W: fz.svd_terms(W).flip(0),
    },
)
terms_used = Check(
    "terms_used",
    lambda P, tolerance: (P.norm(dim=1) > tolerance).sum(dim=0).double(),
    _terms,
    {
        "you count the columns of each term; count the terms of each column.": lambda P, tolerance: (
            (P.norm(dim=1) > tolerance).sum(dim=1).double()
        ),
        "that says whether a column is used at all; count the terms.": lambda P, tolerance: (
            (P.norm(dim=1) > tolerance).any(dim=0).double()
        ),
        "a column is one arrow: compare its length, over its two entries, and do not count entries.": (
            lambda P, tolerance: (P.abs() > tolerance).sum(dim=(0, 1)).double()
        ),
        "the sum of lengths is not a number of terms; count those above the tolerance.": lambda P, tolerance: (
            P.norm(dim=1).sum(dim=0).double()
        ),
        "longer means longer: a column whose length is the tolerance does not count.": lambda P, tolerance: (
            (P.norm(dim=1) >= tolerance).sum(dim=0).double()
        ),
        "a length is the root of a sum of squares; you added up the absolute values.": lambda P, tolerance: (
            (P.abs().sum(dim=1) > tolerance).sum(dim=0).double()
        ),
        "compare with the tolerance; you count every column that is not zero.": lambda P, tolerance: (
            (P.norm(dim=1) > 0).sum(dim=0).double()
        ),
    },
)
weight_gradient = Check(
    "weight_gradient",
    lambda g, x: torch.outer(g, x),
    lambda: [
        (torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])),
        *draws(((4,), (3,)), ((2,), (5,)), ((4,), (4,))),
    ],
    {
        "that is the transpose: W maps x (columns) to the hidden space (rows), so g belongs to the rows.": (
            lambda g, x: torch.outer(x, g)
        ),
        "the sign is wrong: the gradient is the outer product of g and x, without a minus.": lambda g, x: (
            -torch.outer(g, x)
        ),
        "that is g times x entry by entry; each entry of W has a derivative of its own, g_i x_j.": lambda g, x: g * x,
    },
)
