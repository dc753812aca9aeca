"""Exercises on SPD of a residual MLP (notebook 14): predominant subcomponents, co-activation, and subspaces."""

import torch

from pd_helpers.analysis import output_matrix, subspaces
from pd_helpers.course.kit.check import Check, draws

predominant = Check(
    "predominant",
    lambda contributions: contributions.square().sum(dim=2).argmax(dim=0),
    lambda: [
        (torch.tensor([[[3.0, -3.0], [2.0, 2.0]], [[4.0, 0.0], [3.0, 0.0]]]),),
        *draws([(6, 5, 4)], [(3, 4, 6)], [(4, 4, 4)], [(9, 3, 2)]),
    ],
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
        "add up squares, not absolute values.": lambda contributions: contributions.abs().sum(dim=2).argmax(dim=0),
        "those are the predominant features of the pieces; return the predominant piece of each feature.": (
            lambda contributions: contributions.square().sum(dim=2).argmax(dim=1)
        ),
        "those are the largest sums of squares; return which piece has each, with argmax.": lambda contributions: (
            contributions.square().sum(dim=2).amax(dim=0)
        ),
    },
)
co_activation = Check(
    "co_activation",
    lambda g: output_matrix.co_activation(g),
    lambda: [
        (torch.tensor([[0.5, 0.2], [0.9, 0.0], [0.3, 0.1]], dtype=torch.float64),),  # the last number is not above 0.1
        *((0.2 * g,) for (g,) in draws([(12, 4)], [(5, 3)], [(8, 2)], uniform=True)),
    ],
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
        "above 0.1 means more than 0.1; you also count exactly 0.1.": lambda g: output_matrix.co_activation(
            (g >= 0.1).float()
        ),
        "important means above 0.1; you count everything above 0.": lambda g: output_matrix.co_activation(
            (g > 0).float()
        ),
    },
)
subspace_overlap = Check(
    "subspace_overlap",
    subspaces.subspace_overlap,
    lambda: [
        (torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])),
        *draws(*(2 * [shape] for shape in ((8, 3), (5, 2), (4, 1), (3, 3)))),
    ],
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
        "divide by k, the number of columns, and not by d, the number of rows.": lambda A, B: (
            subspaces.subspace_overlap(A, B) * A.shape[1] / len(A)
        ),
        "make the columns of both matrices orthonormal; you did so for one of them only.": lambda A, B: (
            (torch.linalg.qr(A).Q.T @ B).square().sum().item() / A.shape[1]
        ),
    },
)
