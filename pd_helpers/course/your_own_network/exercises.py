"""Exercises on judging a decomposition if nobody knows the right one (notebook 17)."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_helpers.analysis import judging
from pd_helpers.course.kit.check import Check, draws

Forward = Callable[[Mapping[str, Tensor]], Tensor]


def _accuracy(output: Tensor, labels: Tensor) -> Tensor:
    return (output.argmax(dim=1) == labels).double().mean()


def _hard_accuracy(forward: Forward, g: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    return _accuracy(forward({use: (values > 0.1).to(values.dtype) for use, values in g.items()}), labels)


def _networks() -> tuple[tuple[Forward, Mapping[str, Tensor], Tensor], ...]:
    """Networks of two masked layers, their importances, and labels."""

    def network(x: Tensor, W: Tensor, U: Tensor) -> Forward:
        return lambda m: (torch.tanh(x @ W * m["first"]) * m["second"]) @ U

    cases = []
    for x, W, U, g, h in draws((60, 5), (5, 6), (6, 4), (60, 6), (60, 6)):
        forward = network(x, W, U)
        importances = {"first": g.clamp(0, 0.3), "second": h.clamp(0, 0.3)}
        cases.append(
            (forward, importances, forward({use: torch.ones_like(m) for use, m in importances.items()}).argmax(1))
        )
    return tuple(cases)


important_only = Check(
    "important_only",
    _hard_accuracy,
    _networks,
    {
        "you used g itself as the mask; the mask is 1 for an important subcomponent and 0 for any other.": (
            lambda forward, g, labels: _accuracy(forward(g), labels)
        ),
        "you kept the unimportant ones and switched the important ones off.": lambda forward, g, labels: _accuracy(
            forward({use: (values <= 0.1).to(values.dtype) for use, values in g.items()}), labels
        ),
        "the threshold is 0.1; you kept everything above 0.": lambda forward, g, labels: _accuracy(
            forward({use: (values > 0).to(values.dtype) for use, values in g.items()}), labels
        ),
        "that is the number of correct answers; divide by the number of inputs.": lambda forward, g, labels: (
            _hard_accuracy(forward, g, labels) * len(labels)
        ),
        "that is the share of wrong answers.": lambda forward, g, labels: 1 - _hard_accuracy(forward, g, labels),
    },
)


def _cosines(P: Tensor, Q: Tensor) -> Tensor:
    return F.normalize(P.flatten(1), dim=1) @ F.normalize(Q.flatten(1), dim=1).T


def _greedy(P: Tensor, Q: Tensor) -> Tensor:
    """Each row in turn takes the best column that is still free."""
    remainder, matches = _cosines(P, Q), []
    for row in range(len(P)):
        best = remainder[row].argmax()
        matches.append(remainder[row, best].clone())
        remainder[:, best] = -2
    return torch.stack(matches).sort(descending=True).values


def _pairs() -> tuple[tuple[Tensor, Tensor], ...]:
    cases = []
    for P, noise, lengths in draws((6, 3, 2), (6, 3, 2), (6, 1, 1)):
        cases.append((P, (P + 0.8 * noise).flip(0) * lengths.exp()))
    return tuple(cases)


match = Check(
    "match",
    lambda P, Q: judging.matched(P, Q).cosine,
    _pairs,
    {
        "in your answer two components of P may share one of Q; the pairs must be one to one.": lambda P, Q: (
            _cosines(P, Q).max(dim=1).values.sort(descending=True).values
        ),
        "each component in turn took its best free partner; `linear_sum_assignment` finds the best sum.": _greedy,
        "you compared components of the same number; number 3 of one run has nothing to do with number 3 of another.": (
            lambda P, Q: _cosines(P, Q).diag().sort(descending=True).values
        ),
        "linear_sum_assignment minimises the sum; pass maximize=True.": lambda P, Q: (
            -(judging.matched(P, -Q).cosine.sort().values)
        ),
        "divide by the lengths of both matrices; you took the plain dot products.": lambda P, Q: (
            (P.flatten(1) * Q.flatten(1)[judging.matched(P, Q).second[judging.matched(P, Q).first.argsort()]])
            .sum(dim=1)
            .sort(descending=True)
            .values
        ),
        "your order is ascending; the best pair comes first.": lambda P, Q: judging.matched(P, Q).cosine.flip(0),
    },
)


def _accepted(
    coefficients: list[float], drops: list[float], divergences: list[float], limits: tuple[float, float]
) -> list[float]:
    rows = zip(coefficients, drops, divergences, strict=True)
    return [b for b, drop, kl in rows if drop <= limits[0] and kl <= limits[1]]


def _largest_coefficient(
    coefficients: list[float], drops: list[float], divergences: list[float], limits: tuple[float, float]
) -> float:
    return max(_accepted(coefficients, drops, divergences, limits), default=0.0)


def _by_one_limit(index: int) -> Callable[..., float]:
    def answer(
        coefficients: list[float], drops: list[float], divergences: list[float], limits: tuple[float, float]
    ) -> float:
        values = (drops, divergences)[index]
        return max([b for b, v in zip(coefficients, values, strict=True) if v <= limits[index]], default=0.0)

    return answer


largest_coefficient = Check(
    "largest_coefficient",
    _largest_coefficient,
    lambda: (
        ([0.001, 0.003, 0.01, 0.03], [0.002, 0.01, 0.015, 0.05], [0.01, 0.03, 0.2, 0.4], (0.02, 0.1)),
        ([0.03, 0.01, 0.003, 0.001], [0.015, 0.03, 0.0, 0.001], [0.03, 0.09, 0.04, 0.01], (0.02, 0.1)),
        ([0.1, 1.0], [0.5, 0.6], [0.2, 3.0], (0.02, 0.1)),
        ([0.003, 0.01, 0.03], [0.01, 0.05, 0.06], [0.01, 0.02, 0.03], (0.02, 0.1)),
    ),
    {
        "you only looked at the accuracy.": _by_one_limit(0),
        "you only looked at the divergence.": _by_one_limit(1),
        "that is the smallest price that passes: nothing is wrong with it, but it leaves the most pieces.": (
            lambda *arguments: min(_accepted(*arguments), default=0.0)
        ),
        "the prices need not be in order; take the largest of those that pass, not the last.": (
            lambda *arguments: [0.0, *_accepted(*arguments)][-1]
        ),
    },
)
