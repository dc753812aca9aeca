"""Exercises on SPD across layers (notebook 15): a bound on active pieces, matches across layers, misplaced entries."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws


def _most_on(n_pieces: int, probability: float, n_features: int) -> float:
    return n_pieces * (1 - (1 - probability) ** n_features)


most_on = Check(
    "most_on",
    _most_on,
    lambda: ((50, 0.01, 100), (25, 0.02, 60), (17, 0.005, 102)),
    {
        "that is the mean number of features that are on; count pieces, on inputs where any feature is on.": (
            lambda n, p, k: p * k
        ),
        "that counts the inputs on which no feature is on; pieces can be important on the others.": lambda n, p, k: (
            n * (1 - p) ** k
        ),
        "the sum of the features' probabilities counts inputs with two features twice.": lambda n, p, k: n * p * k,
        "that is the share of inputs with a feature on; multiply by the number of pieces.": lambda n, p, k: (
            1 - (1 - p) ** k
        ),
    },
)


def _partners(g0: Tensor, g1: Tensor) -> Tensor:
    overlap = g0.T @ g1
    return torch.from_numpy(linear_sum_assignment(overlap.numpy(), maximize=True)[1])


def _by_argmax(g0: Tensor, g1: Tensor) -> Tensor:
    return (g0.T @ g1).argmax(dim=1)


partners = Check(
    "partners",
    _partners,
    lambda: tuple(draws((12, 6), (12, 6), times=4, uniform=True)),
    {
        "in your answer two pieces of layer 0 may have the same partner; match them one to one.": _by_argmax,
        "linear_sum_assignment minimises the sum; pass maximize=True.": lambda g0, g1: torch.from_numpy(
            linear_sum_assignment((g0.T @ g1).numpy())[1]
        ),
        "those are the partners of the pieces of layer 1; return those of layer 0.": lambda g0, g1: torch.from_numpy(
            linear_sum_assignment((g1.T @ g0).numpy(), maximize=True)[1]
        ),
    },
)


def _misplaced(g: Tensor, high: float = 0.9, low: float = 0.1) -> int:
    diagonal = g.diagonal()
    return int((diagonal < high).sum() + (g > low).sum() - (diagonal > low).sum())


misplaced = Check(
    "misplaced",
    _misplaced,
    lambda: tuple((0.15 * noise + 0.95 * torch.eye(7, 9) * (noise > 0.2),) for (noise,) in draws((7, 9), uniform=True)),
    {
        "diagonal entries need not be small; count entries above 0.1 off the diagonal only.": lambda g: int(
            (g.diagonal() < 0.9).sum() + (g > 0.1).sum()
        ),
        "a diagonal entry below 0.9 is misplaced too.": lambda g: int((g > 0.1).sum() - (g.diagonal() > 0.1).sum()),
        "entries off the diagonal above 0.1 are misplaced too.": lambda g: int((g.diagonal() < 0.9).sum()),
        "you count the entries that are in the right place.": lambda g: g.numel() - _misplaced(g),
    },
)
