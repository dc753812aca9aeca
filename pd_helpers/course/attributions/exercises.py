"""Exercises on attributions (notebook 06): real ablation, APD eq. 10, and the straight curve of APD eq. 9."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws


def _output(W: Tensor, b: Tensor, x: Tensor) -> Tensor:
    return F.relu(W.T @ W @ x + b)


def _ablation_effect(W: Tensor, b: Tensor, P: Tensor, x: Tensor) -> Tensor:
    return (_output(W, b, x) - _output(W - P, b, x)).square().mean().sqrt()


def _eq_10(experts: Tensor, W: Tensor) -> Tensor:
    return experts + (W - experts.sum(dim=0)) / len(experts)


def _on_the_curve(P: Tensor, s: Tensor, t: float) -> Tensor:
    return torch.einsum("c,cij->ij", 1 - t * (1 - s), P)


ablation_effect = Check(
    "ablation_effect",
    _ablation_effect,
    lambda: tuple((W, b.abs(), 0.6 * P, x.abs()) for W, b, P, x in draws((2, 5), (5,), (2, 5), (5,))),
    {
        "that is the effect of removing everything *but* P; remove P from W.": lambda W, b, P, x: (
            (_output(W, b, x) - _output(P, b, x)).square().mean().sqrt()
        ),
        "W is used twice: remove P in both places.": lambda W, b, P, x: (
            (_output(W, b, x) - F.relu(W.T @ (W - P) @ x + b)).square().mean().sqrt()
        ),
        "that is the first-order estimate (eq. 8); here P is removed altogether.": lambda W, b, P, x: (
            ((P.T @ W @ x + W.T @ P @ x) * (W.T @ W @ x + b > 0)).square().mean().sqrt()
        ),
        "take the root of the mean square over outputs; you took the sum.": lambda W, b, P, x: (
            _output(W, b, x) - _output(W - P, b, x)
        ).norm(),
        "the square root is missing.": lambda W, b, P, x: _ablation_effect(W, b, P, x) ** 2,
    },
)
eq_10 = Check(
    "eq_10",
    _eq_10,
    lambda: tuple(draws((6, 2, 5), (2, 5))),
    {
        "every component gets the whole remainder, so the sum contains it C times; divide it by C.": (
            lambda experts, W: experts + W - experts.sum(dim=0)
        ),
        "the remainder is what the *sum* of all experts lacks, not what each expert lacks by itself.": (
            lambda experts, W: experts + (W - experts) / len(experts)
        ),
        "you return the experts; they do not add up to W yet.": lambda experts, W: experts,
        "the sign of the remainder is wrong: add what is missing.": lambda experts, W: 2 * experts - _eq_10(experts, W),
    },
)
on_the_curve = Check(
    "on_the_curve",
    _on_the_curve,
    lambda: tuple(
        (P, (s > 0.5).float(), t)
        for (P, s), t in zip(draws((6, 2, 5), (6,), uniform=True), (0.25, 0.5, 0.9), strict=True)
    ),
    {
        "your curve runs backwards: at t = 0 all components are on, at t = 1 only the active ones.": lambda P, s, t: (
            _on_the_curve(P, s, 1 - t)
        ),
        "you fade the active components; they must stay at 1 all the way.": lambda P, s, t: _on_the_curve(P, 1 - s, t),
        "you fade all components alike; the active ones (s = 1) must stay at 1.": lambda P, s, t: (
            (1 - t) * P.sum(dim=0)
        ),
        "you return the end of the curve for every t.": lambda P, s, t: _on_the_curve(P, s, 1.0),
    },
)
