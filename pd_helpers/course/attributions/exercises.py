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


def _networks() -> list[tuple[Tensor, ...]]:
    """W, b, P and x of small networks."""
    small = torch.eye(2), torch.tensor([-0.5, 0.5]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([2.0, 1.0])
    random = draws(*(((m, n), (n,), (m, n), (n,)) for m, n in ((2, 5), (3, 4), (4, 3))))
    return [small, *((W, b.abs() - 0.3, 0.6 * P, x.abs()) for W, b, P, x in random)]


ablation_effect = Check(
    "ablation_effect",
    _ablation_effect,
    _networks,
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
        "the ReLU is missing.": lambda W, b, P, x: (W.T @ W @ x - (W - P).T @ (W - P) @ x).square().mean().sqrt(),
        "the bias b is missing.": lambda W, b, P, x: _ablation_effect(W, 0 * b, P, x),
        "that is the mean size of the change; take the root of its mean square.": lambda W, b, P, x: (
            (_output(W, b, x) - _output(W - P, b, x)).abs().mean()
        ),
    },
)
eq_10 = Check(
    "eq_10",
    _eq_10,
    lambda: [
        (torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]]]), torch.tensor([[3.0, 1.0]])),
        *draws(((6, 2, 5), (2, 5)), ((3, 4, 2), (4, 2)), ((4, 3, 3), (3, 3))),
    ],
    {
        "every component gets the whole remainder, so the sum contains it C times; divide it by C.": (
            lambda experts, W: experts + W - experts.sum(dim=0)
        ),
        "the remainder is what the *sum* of all experts lacks, not what each expert lacks by itself.": (
            lambda experts, W: experts + (W - experts) / len(experts)
        ),
        "you return the experts; they do not add up to W yet.": lambda experts, W: experts,
        "the sign of the remainder is wrong: add what is missing.": lambda experts, W: 2 * experts - _eq_10(experts, W),
        "one component gets the whole remainder; equation 10 gives an equal part to each.": lambda experts, W: (
            torch.cat([experts[:-1], (W - experts[:-1].sum(dim=0))[None]])
        ),
        "every component is the same share of W now; keep the experts and add what they lack.": lambda experts, W: (
            W.expand_as(experts) / len(experts)
        ),
    },
)


def _halfway() -> list[tuple[Tensor, Tensor, float]]:
    """Components, which of them are active, and points on the curve."""
    tables = draws(((6, 2, 5), (6,)), ((3, 4, 2), (3,)), ((4, 3, 3), (4,)), ((5, 1, 3), (5,)))
    random = [(P, (s > 0).float(), t) for (P, s), t in zip(tables, (0.5, 0.9, 1.0, 0.0), strict=True)]
    return [(torch.tensor([[[1.0, 2.0]], [[4.0, -8.0]]]), torch.tensor([1.0, 0.0]), 0.25), *random]


on_the_curve = Check(
    "on_the_curve",
    _on_the_curve,
    _halfway,
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
