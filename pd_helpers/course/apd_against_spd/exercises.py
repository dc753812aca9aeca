"""Exercises on comparing APD with SPD (notebook 16): rank correlations, ROC areas, and components without gradients."""

import torch
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(), b - b.mean()
    return (a @ b) / (a.norm() * b.norm())


def _ranks(v: Tensor) -> Tensor:
    return v.argsort().argsort().float()


def _rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    return _pearson(_ranks(a), _ranks(b))


rank_correlation = Check(
    "rank_correlation",
    _rank_correlation,
    lambda: tuple(draws((9,), (9,), times=4)),
    {
        "that is the correlation of the values; correlate their ranks.": _pearson,
        "argsort says where each rank is found, not which rank each value has; apply argsort to its result again.": (
            lambda a, b: _pearson(a.argsort().float(), b.argsort().float())
        ),
        "the sign is wrong: one of your two rankings is in descending order.": lambda a, b: -_rank_correlation(a, b),
    },
)


def _separation(estimate: Tensor, matters: Tensor) -> Tensor:
    lead = estimate[matters][:, None] - estimate[~matters][None]
    return ((lead > 0).float() + 0.5 * (lead == 0).float()).mean()


def _estimates() -> tuple[tuple[Tensor, Tensor], ...]:
    return tuple(
        ((4 * values).round() / 4, selector < 0.4) for values, selector in draws((10,), (10,), times=5, uniform=True)
    )


separation = Check(
    "separation",
    _separation,
    _estimates,
    {
        "each tie counts as half a win; you do not count ties.": lambda e, m: (
            (e[m][:, None] > e[~m][None]).float().mean()
        ),
        "each tie counts as half a win; you count it as a whole one.": lambda e, m: (
            (e[m][:, None] >= e[~m][None]).float().mean()
        ),
        "the pairs are the wrong way round: components that matter should win.": lambda e, m: 1 - _separation(e, m),
        "compare components that matter with those that do not, and not with all components.": lambda e, m: (
            (e[m][:, None] > e[None]).float() + 0.5 * (e[m][:, None] == e[None]).float()
        ).mean(),
    },
)


def _starved(sizes: Tensor) -> Tensor:
    return (sizes == 0).all(dim=0)


starved = Check(
    "starved",
    _starved,
    lambda: tuple((values * (values > 0.9) * (torch.arange(8) % 3 > 0),) for (values,) in draws((8, 8), uniform=True)),
    {
        "those components had no gradient at *some* point; find those that had none at *any* point.": lambda sizes: (
            sizes == 0
        ).any(dim=0),
        "those are the components that had a gradient at some point; the answer is the others.": lambda sizes: (
            sizes > 0
        ).any(dim=0),
        "you return one value for each point in training; return one for each component, with dim=0.": lambda sizes: (
            sizes == 0
        ).all(dim=1),
    },
)
