"""Exercises on SPD of a residual MLP (notebook 14): predominant subcomponents, co-activation, and subspaces."""

import torch

from pd_helpers.analysis import output_matrix, subspaces
from pd_helpers.course.kit.check import Check, draws

predominant = Check(
    "predominant",
    lambda contributions: contributions.square().sum(dim=2).argmax(dim=0),
    lambda: tuple(draws((6, 5, 4))),
    {
        "contributions may be negative and cancel in a plain sum; add up their squares.": lambda contributions: (
            contributions.sum(dim=2).argmax(dim=0)
        ),
        "you compare the largest neuron only; add up over neurons before you compare.": lambda contributions: (
            contributions.abs().amax(dim=2).argmax(dim=0)
        ),
        "that is the piece with the smallest contributions; take the largest.": lambda contributions: (
            contributions.square().sum(dim=2).argmin(dim=0)
        ),
    },
)
co_activation = Check(
    "co_activation",
    lambda g: output_matrix.co_activation(g),
    lambda: tuple(draws((40, 4), uniform=True))[:1] + tuple((0.3 * g,) for (g,) in draws((40, 4), uniform=True)),
    {
        "divide row i by how often i is important; you divided column j by how often j is.": lambda g: (
            output_matrix.co_activation(g).T
        ),
        "that is the share of all inputs on which both are important; divide row i by how often i is.": lambda g: (
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
    subspaces.subspace_overlap,
    lambda: tuple(draws((8, 3), (8, 3))),
    {
        "make the columns orthonormal first, for instance with torch.linalg.qr.": lambda A, B: (
            (A.T @ B).square().sum().item() / A.shape[1]
        ),
        "length one is not enough: the columns must also be at right angles to each other.": lambda A, B: (
            ((A / A.norm(dim=0)).T @ (B / B.norm(dim=0))).square().sum().item() / A.shape[1]
        ),
        "divide by the dimension of the subspace, so that the overlap of a space with itself is 1.": lambda A, B: (
            subspaces.subspace_overlap(A, B) * A.shape[1]
        ),
        "square the cosines before adding them up.": lambda A, B: (
            (torch.linalg.qr(A).Q.T @ torch.linalg.qr(B).Q).abs().sum().item() / A.shape[1]
        ),
    },
)
