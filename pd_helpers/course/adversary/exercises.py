"""Exercises on attacks (notebook 18): a projected step, the best corner, who is to blame, a penalty, a gradient."""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws


def _sources() -> list[tuple[Tensor, Tensor, float]]:
    small = torch.tensor([0.05, 0.95, 0.5, 0.0]), torch.tensor([-2.0, 0.3, 0.01, -5.0]), 0.1
    random = draws(((4, 6), (4, 6)), ((9,), (9,)))
    return [small, *((r.sigmoid(), grad, step) for (r, grad), step in zip(random, (0.1, 0.3), strict=True))]


ascent_step = Check(
    "ascent_step",
    lambda r, grad, step: (r + step * grad.sign()).clamp(0, 1),
    _sources,
    {
        "that goes downhill; an attack climbs, so add the step.": lambda r, grad, step: (r - step * grad.sign()).clamp(
            0, 1
        ),
        "sources left [0, 1]; clamp them after the step.": lambda r, grad, step: r + step * grad.sign(),
        "take the sign of the gradient, so that every source moves by the whole step.": lambda r, grad, step: (
            r + step * grad
        ).clamp(0, 1),
        "clamp the sources, not the gradient.": lambda r, grad, step: r + step * grad.sign().clamp(0, 1),
        "you divided by the norm of the gradient; take the sign of every entry.": lambda r, grad, step: (
            r + step * grad / grad.norm()
        ).clamp(0, 1),
    },
)


def _errors() -> list[tuple[Callable[[Tensor], Tensor], int]]:
    """Functions of sources (n,), in which what is worst depends on several sources at once."""
    matrices = draws([(3, 3)], [(4, 4)], [(2, 2)])

    def quadratic(M: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda r: (M @ (r - 0.4)).square().sum()

    return [(lambda r: (r[0] - r[1]).square(), 2), *((quadratic(M), len(M)) for (M,) in matrices)]


def _corners(n: int) -> list[Tensor]:
    return [torch.tensor(corner) for corner in product((0.0, 1.0), repeat=n)]


best_corner = Check(
    "best_corner",
    lambda error, n: max(error(r) for r in _corners(n)),
    _errors,
    {
        "that is the smallest error; an attack wants the largest.": lambda error, n: min(error(r) for r in _corners(n)),
        "you moved one source at a time; try all 2ⁿ combinations.": lambda error, n: max(
            error(r) for r in torch.eye(n)
        ),
        "you only tried all sources at 0 and all at 1; try all 2ⁿ combinations.": lambda error, n: max(
            error(torch.zeros(n)), error(torch.ones(n))
        ),
        "you returned the mean over corners; return the largest error.": lambda error, n: torch.stack(
            [error(r) for r in _corners(n)]
        ).mean(),
    },
)


def _importances() -> list[tuple[Tensor, float, float]]:
    small = torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.0, 1.0]]), 1.0, 3.0
    random = draws([(6, 4)], [(10, 3)], [(5, 5)])
    return [
        small,
        *((g.sigmoid(), p, a) for (g,), p, a in zip(random, (0.5, 2.0, 1.0), (16.0, 100.0, 4.0), strict=True)),
    ]


def _penalty(f: Tensor, a: float) -> Tensor:
    return (f * torch.log2(1 + a * f)).sum()


frequency_penalty = Check(
    "frequency_penalty",
    lambda g, p, a: _penalty(g.pow(p).mean(dim=0), a),
    _importances,
    {
        "take the mean over rows before the logarithm: f belongs to a subcomponent, not to an input.": lambda g, p, a: (
            (g.pow(p) * torch.log2(1 + a * g.pow(p))).sum(dim=1).mean()
        ),
        "raise each importance to the power p before you take the mean.": lambda g, p, a: _penalty(
            g.mean(dim=0).pow(p), a
        ),
        "you left out the power p.": lambda g, p, a: _penalty(g.mean(dim=0), a),
        "the logarithm has base 2.": lambda g, p, a: (
            g.pow(p).mean(dim=0) * torch.log(1 + a * g.pow(p).mean(dim=0))
        ).sum(),
        "multiply the logarithm by f.": lambda g, p, a: torch.log2(1 + a * g.pow(p).mean(dim=0)).sum(),
        "add up over subcomponents; you took their mean.": lambda g, p, a: (
            _penalty(g.pow(p).mean(dim=0), a) / g.shape[1]
        ),
        "f is a mean over inputs (rows); you took it over subcomponents.": lambda g, p, a: _penalty(
            g.pow(p).mean(dim=1), a
        ),
    },
)


def _passing() -> list[tuple[Tensor, Tensor]]:
    small = torch.tensor([-2.0, -2.0, 0.5, 0.5, 3.0, 3.0]), torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    return [small, *draws(((5, 4), (5, 4)), ((20,), (20,)))]


straight_through_gradient = Check(
    "straight_through_gradient",
    lambda gate, grad: torch.where(gate < 0, 0.01 * grad.clamp(max=0), torch.where(gate > 1, 0.0, grad)),
    _passing,
    {
        "below 0, only a gradient that wants the gate to rise may pass; which sign has that?": (
            lambda gate, grad: torch.where(gate < 0, 0.01 * grad, torch.where(gate > 1, 0.0, grad))
        ),
        "that lets the wrong sign pass: training goes against the gradient, so a gate rises where it is negative.": (
            lambda gate, grad: torch.where(gate < 0, 0.01 * grad.clamp(min=0), torch.where(gate > 1, 0.0, grad))
        ),
        "above 1 the sigmoid is flat and nothing passes.": lambda gate, grad: torch.where(
            gate < 0, 0.01 * grad.clamp(max=0), grad
        ),
        "below 0, a gradient is multiplied by 0.01.": lambda gate, grad: torch.where(
            gate < 0, grad.clamp(max=0), torch.where(gate > 1, 0.0, grad)
        ),
        "that is a plain clamp: below 0 nothing passes, and a gate there can never rise again.": lambda gate, grad: (
            torch.where((gate < 0) | (gate > 1), 0.0, grad)
        ),
    },
)


def _attacked() -> list[tuple[Callable[[Tensor], Tensor], Tensor]]:
    matrices = draws([(4, 4)], [(5, 5)], [(3, 3)])

    def harmless_at_one(M: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda r: (M @ (1 - r)).square().sum()

    small = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0.0, 0.5])
    random = [(M, torch.linspace(0, 0.9, len(M))) for (M,) in matrices]
    return [(harmless_at_one(M), r) for M, r in (small, *random)]


def _with(r: Tensor, c: int, value: float) -> Tensor:
    return torch.where(torch.arange(len(r)) == c, value, r)


def _each(drop: Callable[[Callable, Tensor, int], Tensor]) -> Callable[[Callable, Tensor], Tensor]:
    return lambda error, r: torch.stack([drop(error, r, c) for c in range(len(r))])


blame = Check(
    "blame",
    _each(lambda error, r, c: error(r) - error(_with(r, c, 1.0))),
    _attacked,
    {
        "that is how much the error rises; blame is how much it falls when the source is put back.": _each(
            lambda error, r, c: error(_with(r, c, 1.0)) - error(r)
        ),
        "you put the source to 0; harmless is 1.": _each(lambda error, r, c: error(r) - error(_with(r, c, 0.0))),
        "that is the error of one source alone, all others at 1; leave the others as the attack has them.": _each(
            lambda error, r, c: error(torch.where(torch.arange(len(r)) == c, r, 1.0))
        ),
        "that is the error that is left; blame is how much it has fallen.": _each(
            lambda error, r, c: error(_with(r, c, 1.0))
        ),
    },
)
