"""Exercises on judging a decomposition if nobody knows the right one (notebook 17)."""

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pd_helpers.analysis import judging
from pd_helpers.course.kit.check import Check, draws
from pd_helpers.course.your_own_network import ideas

Forward = Callable[[Mapping[str, Tensor]], Tensor]


def _accuracy(output: Tensor, labels: Tensor) -> Tensor:
    return (output.argmax(dim=1) == labels).double().mean()


def _hard_accuracy(forward: Forward, g: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    return _accuracy(forward({use: (values > 0.1).to(values.dtype) for use, values in g.items()}), labels)


def _networks() -> tuple[tuple[Forward, Mapping[str, Tensor], Tensor], ...]:
    """Networks of masked layers, their importances, and labels; one number of the first is 0.1 exactly."""

    def vote(masks: Mapping[str, Tensor]) -> Tensor:
        """a network with mask 0 + mask 1 as output for class 0, and 1.5 times mask 2 for class 1"""
        return masks["layer"].double() @ torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.5]]).double()

    def network(x: Tensor, W: Tensor, U: Tensor, names: Sequence[str]) -> Forward:
        def forward(masks: Mapping[str, Tensor]) -> Tensor:
            a = x @ W
            for name in names:
                a = torch.tanh(a * masks[name].float())
            return a @ U

        return forward

    small = {"layer": torch.tensor([[0.9, 0.05, 0.3], [0.2, 0.1, 0.5]], dtype=torch.float64)}
    cases = [(vote, small, torch.tensor([1, 0]))]
    for rows, C, names in ((60, 6, ["first", "second"]), (20, 4, ["0"]), (40, 5, ["embed", "middle", "unembed"])):
        x, W, U, *importances = draws([(rows, 3), (3, C), (C, 4), *(len(names) * [(rows, C)])])[0]
        forward = network(x, W, U, names)
        g = {name: values.clamp(0, 0.3) for name, values in zip(names, importances, strict=True)}
        cases.append((forward, g, forward({name: torch.ones(rows, C) for name in names}).argmax(dim=1)))
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
        "above 0.1 means more than 0.1; you also keep exactly 0.1.": lambda forward, g, labels: _accuracy(
            forward({use: (values >= 0.1).to(values.dtype) for use, values in g.items()}), labels
        ),
        "important ones are on at 1; you left them at their importance.": lambda forward, g, labels: _accuracy(
            forward({use: values * (values > 0.1) for use, values in g.items()}), labels
        ),
        "you left all subcomponents on.": lambda forward, g, labels: _accuracy(
            forward({use: torch.ones_like(values) for use, values in g.items()}), labels
        ),
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


def _greedy_pairs(P: Tensor, Q: Tensor) -> Tensor:
    """The best of all pairs, then the best of those that are left, and so on."""
    remainder, matches = _cosines(P, Q), []
    for _ in range(len(P)):
        row, column = divmod(int(remainder.argmax()), len(Q))
        matches.append(remainder[row, column].clone())
        remainder[row], remainder[:, column] = -2, -2
    return torch.stack(matches)


def _unsorted(P: Tensor, Q: Tensor) -> Tensor:
    pairs = judging.matched(P, Q)
    return pairs.cosine[pairs.first.argsort()]


def _by_size(P: Tensor, Q: Tensor) -> Tensor:
    cosines = _cosines(P, Q).abs()
    return cosines[linear_sum_assignment(cosines.numpy(), maximize=True)].sort(descending=True).values


def _pairs() -> tuple[tuple[Tensor, Tensor], ...]:
    small = torch.tensor([[[1.0, 0.0]], [[0.0, -1.0]]]), torch.tensor([[[2.0, -1.0]], [[1.0, 1.0]]])
    opposite = torch.tensor([[[1.0, 0.0]], [[-2.0, 1.0]]]), torch.tensor([[[2.0, 1.0]], [[1.0, -2.0]]])
    shapes = ((6, 3, 2), (4, 2, 2), (7, 1, 2), (3, 2, 3))
    random = draws(*((shape, shape, (shape[0], 1, 1)) for shape in shapes))
    return (small, opposite, *((P, (P + 0.8 * noise).flip(0) * lengths.exp()) for P, noise, lengths in random))


match = Check(
    "match",
    lambda P, Q: judging.matched(P, Q).cosine,
    _pairs,
    {
        "in your answer two components of P may share one of Q; the pairs must be one to one.": lambda P, Q: (
            _cosines(P, Q).max(dim=1).values.sort(descending=True).values
        ),
        "each component in turn took its best free partner; `linear_sum_assignment` finds the best sum.": _greedy,
        "you took the best of all pairs, then the best of the rest; `linear_sum_assignment` finds the best sum.": (
            _greedy_pairs
        ),
        "the cosines are right, but not their order; sort them so that the largest comes first.": _unsorted,
        "the sign belongs to the cosine: opposite components are no match, so leave out the absolute value.": _by_size,
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


def _passes(row: tuple[float, float, float], limits: tuple[float, float]) -> bool:
    return row[1] <= limits[0] and row[2] <= limits[1]


def _accepted(
    coefficients: list[float], drops: list[float], divergences: list[float], limits: tuple[float, float]
) -> list[float]:
    return [row[0] for row in zip(coefficients, drops, divergences, strict=True) if _passes(row, limits)]


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
        ([0.1, 0.3, 0.2], [0.01, 0.05, 0.02], [0.1, 0.0, 0.1], (0.02, 0.1)),
        ([0.001, 0.003, 0.01, 0.03], [0.002, 0.01, 0.015, 0.05], [0.01, 0.03, 0.2, 0.4], (0.02, 0.1)),
        ([0.01, 0.02, 0.05, 0.1], [0.06, 0.04, -0.08, -0.01], [0.2, 0.3, 0.05, 0.4], (0.05, 0.3)),
        ([0.03, 0.01, 0.003, 0.001], [0.015, 0.03, 0.0, 0.001], [0.03, 0.09, 0.04, 0.01], (0.02, 0.1)),
        ([0.1, 1.0], [0.5, 0.6], [0.2, 3.0], (0.02, 0.1)),
        ([0.1, 1.0], [0.5, 0.6], [0.2, 3.0], (0.5, 1.0)),
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
        "the limits are included: a drop or a divergence that equals its limit passes.": (
            lambda b, drops, divergences, limits: max(
                [x for x, drop, kl in zip(b, drops, divergences, strict=True) if drop < limits[0] and kl < limits[1]],
                default=0.0,
            )
        ),
        "a price after one that fails may pass again; look at all of them.": (
            lambda b, drops, divergences, limits: max(
                [x for x, *_ in takewhile(lambda row: _passes(row, limits), zip(b, drops, divergences, strict=True))],
                default=0.0,
            )
        ),
        "the limits are those handed over; yours are always 0.02 and 0.1.": lambda b, drops, divergences, limits: (
            _largest_coefficient(b, drops, divergences, (0.02, 0.1))
        ),
        "a negative drop is a gain of accuracy, which passes; leave out the absolute value.": (
            lambda b, drops, divergences, limits: _largest_coefficient(b, [*map(abs, drops)], divergences, limits)
        ),
    },
)


def _places() -> tuple[tuple[Tensor], ...]:
    """Importances of layers with one row for an input, several positions, and places in two dimensions."""
    small = torch.tensor([[[0.9, 0.0, 0.1], [0.8, 0.3, 0.0]], [[0.0, 0.0, 0.05], [0.0, 0.2, 0.05]]])
    shapes = ((7, 5), (6, 4, 9), (5, 3, 2, 8), (3, 6, 4), (4, 2, 5, 3))
    random = [(values.abs() - 0.6).clamp(0, 1) for (values,) in draws(*((shape,) for shape in shapes))]
    return ((small,), *((g,) for g in random))


subcomponents_per_input = Check(
    "subcomponents_per_input",
    ideas.subcomponents_per_input,
    _places,
    {
        "that is L0 per row; take the places of an input together before you count.": lambda g: (
            (g > 0.1).sum(dim=-1).double().mean()
        ),
        "a subcomponent that an input needs at several places counts once; you counted it at each of them.": lambda g: (
            (g > 0.1).flatten(1).sum(dim=1).double().mean()
        ),
        "one place is enough; you counted those that are important at every place.": lambda g: (
            (g > 0.1).movedim(-1, 0).flatten(2).all(dim=2).sum(dim=0).double().mean()
            if g.ndim > 2
            else (g > 0.1).sum(dim=-1).double().mean()
        ),
        "that is how many are alive on some input; count for each input by itself, then take the mean.": lambda g: (
            (g > 0.1).flatten(0, -2).any(dim=0).sum()
        ),
        "the threshold is 0.1 at a single place; you took the mean over places first.": lambda g: (
            (g.flatten(1, -2).mean(dim=1) > 0.1).sum(dim=-1).double().mean()
            if g.ndim > 2
            else (g > 0.1).sum(dim=-1).double().mean()
        ),
        "above 0.1 means more than 0.1; you also count exactly 0.1.": lambda g: (
            (g.flatten(1, -2).amax(dim=1) if g.ndim > 2 else g).ge(0.1).sum(dim=-1).double().mean()
        ),
        "the threshold is 0.1; you counted everything above 0.": lambda g: (
            (g.flatten(1, -2).amax(dim=1) if g.ndim > 2 else g).gt(0).sum(dim=-1).double().mean()
        ),
        "that is the sum over all inputs; divide by their number.": lambda g: ideas.subcomponents_per_input(g) * len(g),
        "that is the share of the subcomponents; their number is wanted.": lambda g: (
            ideas.subcomponents_per_input(g) / g.shape[-1]
        ),
    },
)
