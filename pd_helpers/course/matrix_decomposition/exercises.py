"""Exercises on matrix decompositions (notebook 01)."""

import torch
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws
from pd_helpers.course.matrix_decomposition import ideas as fz


def _svd(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.linalg.svd(W, full_matrices=False)


svd_terms = Check(
    "svd_terms",
    fz.svd_terms,
    lambda: tuple(draws((2, 5))),
    {
        "the singular values are missing: each term is σ u vᵀ.": lambda W: torch.einsum(
            "ic,cj->cij", _svd(W).U, _svd(W).Vh
        ),
        "each term must carry its own σ once; you have the square.": lambda W: torch.einsum(
            "ic,c,cj->cij", _svd(W).U, _svd(W).S.square(), _svd(W).Vh
        ),
        "you split W into its rows; their directions are those of the axes, not of W.": lambda W: torch.einsum(
            "ci,ij->cij", torch.eye(2), W
        ),
    },
)
terms_used = Check(
    "terms_used",
    lambda P, tolerance: (P.norm(dim=1) > tolerance).sum(dim=0).double(),
    lambda: tuple((P * (mask > 0.4), 0.1) for P, mask in draws((5, 2, 5), (5, 1, 5), uniform=True)),
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
    },
)
weight_gradient = Check(
    "weight_gradient",
    lambda g, x: torch.outer(g, x),
    lambda: tuple(draws((4,), (4,))),
    {
        "that is the transpose: W maps x (columns) to the hidden space (rows), so g belongs to the rows.": (
            lambda g, x: torch.outer(x, g)
        ),
        "the sign is wrong: the gradient is the outer product of g and x, without a minus.": lambda g, x: (
            -torch.outer(g, x)
        ),
    },
)
