"""Exercises on description length (notebook 05)."""

import math

import torch
from torch import Tensor

from pd_helpers.course.description_length import ideas as dl
from pd_helpers.course.kit.check import Check, draws


def _bits(active: Tensor, ranks: Tensor, alpha: float) -> Tensor:
    return (active @ (alpha * ranks + math.log2(active.shape[1]))).mean()


def _inputs() -> list[tuple[Tensor, Tensor, float]]:
    """Which components are active on each input, their ranks, and the bits of one number."""
    small = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0]]), torch.tensor([1.0, 2.0, 1.0, 3.0]), 0.5
    tables = draws(((7, 5), (5,)), ((4, 6), (6,)), ((5, 3), (3,)), uniform=True)
    random = zip(tables, (1.0, 3.5, 0.2), strict=True)
    return [small, *(((on > 0.5).float(), (1 + 3 * r).floor(), alpha) for (on, r), alpha in random)]


def _threshold(p1: float, p2: float, p12: float, C: int) -> float:
    return p12 * math.log2(C) / (p1 + p2 - 2 * p12)


description_length = Check(
    "description_length",
    _bits,
    _inputs,
    {
        "each active component has a name as well, which costs log₂ C bits.": lambda active, ranks, alpha: (
            active @ (alpha * ranks)
        ).mean(),
        "the logarithm is of the number of components, C; you took that of the number of inputs.": (
            lambda active, ranks, alpha: (active @ (alpha * ranks + math.log2(len(active)))).mean()
        ),
        "a bit is a factor of two: take the logarithm to base 2.": lambda active, ranks, alpha: (
            active @ (alpha * ranks + math.log(active.shape[1]))
        ).mean(),
        "that is the sum over all inputs; take the mean.": lambda active, ranks, alpha: (
            len(active) * _bits(active, ranks, alpha)
        ),
        "a component of rank 2 needs two numbers: multiply α by the rank.": lambda active, ranks, alpha: _bits(
            active, torch.ones_like(ranks), alpha
        ),
        "a component has one name, whatever its rank: only α is multiplied by the rank.": lambda active, ranks, alpha: (
            active @ (ranks * (alpha + math.log2(active.shape[1])))
        ).mean(),
        "only active components are described; you count all of them on every input.": lambda active, ranks, alpha: (
            _bits(torch.ones_like(active), ranks, alpha)
        ),
    },
)
merge_threshold = Check(
    "merge_threshold",
    dl.merge_threshold,
    lambda: [(0.5, 0.25, 0.125, 16), (0.2, 0.2, 0.16, 6), (0.3, 0.1, 0.05, 50), (0.1, 0.4, 0.05, 3)],
    {
        "a bit is a factor of two: take the logarithm to base 2.": lambda p1, p2, p12, C: (
            p12 * math.log(C) / (p1 + p2 - 2 * p12)
        ),
        "merged, they are described wherever *either* is active: a share p₁ + p₂ − p₁₂ of inputs, with two numbers.": (
            lambda p1, p2, p12, C: p12 * math.log2(C) / (p1 + p2 - p12)
        ),
        "that is the reciprocal of the threshold.": lambda p1, p2, p12, C: 1 / _threshold(p1, p2, p12, C),
        "you left out the log2 C bits that one name costs.": lambda p1, p2, p12, C: p12 / (p1 + p2 - 2 * p12),
    },
)
true_schatten = Check(
    "true_schatten",
    dl.schatten,
    lambda: [
        (torch.tensor([[2.5, 1.5], [1.5, 2.5]]), 0.5),
        *((P, p) for (P,), p in zip(draws([(4, 6)], [(3, 2)], [(3, 3)]), (1.0, 0.9, 0.6), strict=True)),
    ],
    {
        "leave out the root at the end: the loss uses ‖P‖ᵖ, which is the sum itself.": lambda P, p: (
            dl.schatten(P, p) ** (1 / p) if p != 1 else dl.schatten(P, p)
        ),
        "use singular values and not entries, which say nothing about the rank.": lambda P, p: P.abs().pow(p).sum(),
        "those are lengths of rows; take singular values.": lambda P, p: P.norm(dim=1).pow(p).sum(),
        "those are squared singular values.": lambda P, p: dl.schatten(P, 2 * p),
        "raise each singular value to the power before you add them up.": lambda P, p: dl.schatten(P, 1.0) ** p,
        "the exponent p is missing.": lambda P, p: dl.schatten(P, 1.0),
    },
)
