"""Exercises on SPD of residual MLPs (notebook 14)."""

import torch
from torch import Tensor

from pd_helpers import mixing, output_matrix
from pd_helpers.checks.check import Check, draws


def _parts() -> tuple[tuple[Tensor], ...]:
    return tuple(draws((6, 5, 4)))


predominant = Check(
    "predominant",
    lambda parts: parts.square().sum(dim=2).argmax(dim=0),
    _parts,
    {
        "contributions may be negative and cancel in a plain sum; add their squares.": lambda parts: parts.sum(
            dim=2
        ).argmax(dim=0),
        "one large neuron is not all: add up over neurons before you compare.": lambda parts: (
            parts.abs().amax(dim=2).argmax(dim=0)
        ),
        "that is the piece with the least; take the largest.": lambda parts: parts.square().sum(dim=2).argmin(dim=0),
    },
)
co_activation = Check(
    "co_activation",
    lambda g: output_matrix.co_activation(g),
    lambda: tuple(draws((40, 4), uniform=True))[:1] + tuple((0.3 * g,) for (g,) in draws((40, 4), uniform=True)),
    {
        "row i should be divided by how often i is important; that is column j's.": lambda g: (
            output_matrix.co_activation(g).T
        ),
        "that is how often both are important at all; divide row i by how often i is.": lambda g: (
            (g > 0.1).float().T @ (g > 0.1).float() / len(g)
        ),
        "those are counts of inputs; divide row i by how often i is important.": lambda g: (
            (g > 0.1).float().T @ (g > 0.1).float()
        ),
        "important means g above 0.1; you used g itself.": lambda g: g.T @ g / g.sum(dim=0)[:, None],
    },
)
subspace_overlap = Check(
    "subspace_overlap",
    mixing.subspace_overlap,
    lambda: tuple(draws((8, 3), (8, 3))),
    {
        "the columns must be made orthonormal first, for instance with torch.linalg.qr.": lambda A, B: (
            (A.T @ B).square().sum().item() / A.shape[1]
        ),
        "length one is not enough: the columns must also be at right angles to each other.": lambda A, B: (
            ((A / A.norm(dim=0)).T @ (B / B.norm(dim=0))).square().sum().item() / A.shape[1]
        ),
        "divide by the number of dimensions of the subspace, so that a space overlaps with itself by 1.": lambda A, B: (
            mixing.subspace_overlap(A, B) * A.shape[1]
        ),
        "square the cosines before adding them up.": lambda A, B: (
            (torch.linalg.qr(A).Q.T @ torch.linalg.qr(B).Q).abs().sum().item() / A.shape[1]
        ),
    },
)
