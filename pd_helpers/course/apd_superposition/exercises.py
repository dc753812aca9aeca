"""Exercises on APD (notebook 07): batch top-k, attributions (APD eq. 8), and Schatten norms (APD eq. 22)."""

import torch
from torch import Tensor

from pd_helpers.core import attributions, losses
from pd_helpers.course.kit.check import Check, draws


def _attribution(W: Tensor, b: Tensor, P: Tensor, x: Tensor) -> Tensor:
    z = W.T @ W @ x + b
    return ((P.T @ W @ x + W.T @ P @ x) * (z > 0)).square().mean().sqrt()


def _biased(shape: tuple[int, int]) -> list[tuple[Tensor, ...]]:
    return [(W, -0.2 * b.abs(), P, x.abs()) for W, b, P, x in draws(shape, shape[1:], shape, shape[1:])]


batch_top_k = Check(
    "batch_top_k",
    lambda A, k: attributions.batch_top_k(A, k).float(),
    lambda: tuple((A, k) for (A,), k in zip(draws((6, 4), uniform=True), (4, 6, 9), strict=True)),
    {
        "you take the top of every row; batch top-k takes the top of the whole batch.": lambda A, k: torch.zeros_like(
            A
        ).scatter(1, A.topk(max(1, round(k / len(A))), dim=1).indices, 1.0),
        "you keep the smallest attributions; keep the largest.": lambda A, k: attributions.batch_top_k(
            A.max() + 1 - A, k
        ).float(),
        "you keep the attributions themselves; the mask holds only 0 and 1.": lambda A, k: (
            A * attributions.batch_top_k(A, k)
        ),
    },
)
attribution = Check(
    "attribution",
    _attribution,
    lambda: tuple(_biased((2, 5))),
    {
        "W is used twice (W and Wᵀ), so moving it along P changes the output in two places; you have only one.": (
            lambda W, b, P, x: ((W.T @ P @ x) * (W.T @ W @ x + b > 0)).square().mean().sqrt()
        ),
        "W is used twice (W and Wᵀ); you have only the second use, Pᵀ.": lambda W, b, P, x: (
            ((P.T @ W @ x) * (W.T @ W @ x + b > 0)).square().mean().sqrt()
        ),
        "where the ReLU is off the output does not change: multiply by (z > 0).": lambda W, b, P, x: (
            (P.T @ W @ x + W.T @ P @ x).square().mean().sqrt()
        ),
        "eq. 8 takes the root of the mean square over outputs; you took the sum.": lambda W, b, P, x: (
            ((P.T @ W @ x + W.T @ P @ x) * (W.T @ W @ x + b > 0)).square().sum().sqrt()
        ),
        "the square root is missing.": lambda W, b, P, x: _attribution(W, b, P, x) ** 2,
    },
)
schatten = Check(
    "schatten",
    losses.schatten,
    lambda: tuple((U, V, p) for (U, V), p in zip(draws((5, 2, 3), (5, 3, 4)), (1.0, 0.9, 0.5), strict=True)),
    {
        "the exponent acts on lengths: ‖U‖²‖V‖² is already squared, so it is raised to p/2.": lambda U, V, p: (
            (U.square().sum(1) * V.square().sum(2)).pow(p).sum(-1)
        ),
        "raise to the power before summing over r, not after.": lambda U, V, p: (
            (U.square().sum(1) * V.square().sum(2)).sum(-1).pow(p / 2)
        ),
        "you summed the entries' absolute values; the lengths ‖U_cr‖ and ‖V_cr‖ are Euclidean.": lambda U, V, p: (
            (U.abs().sum(1) * V.abs().sum(2)).pow(p).sum(-1)
        ),
    },
)
