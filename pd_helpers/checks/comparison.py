"""Exercises on comparing APD with SPD (notebook 16)."""

import torch
from torch import Tensor

from pd_helpers.checks.check import Check, draws


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
        "argsort says where each rank is found, not which rank each value has; take argsort of it once more.": (
            lambda a, b: _pearson(a.argsort().float(), b.argsort().float())
        ),
        "one of the two rankings runs downwards: the sign is the wrong way round.": lambda a, b: (
            -_rank_correlation(a, b)
        ),
    },
)


def _separation(estimate: Tensor, matters: Tensor) -> Tensor:
    won = estimate[matters][:, None] - estimate[~matters][None]
    return ((won > 0).float() + 0.5 * (won == 0).float()).mean()


def _estimates() -> tuple[tuple[Tensor, Tensor], ...]:
    return tuple(
        ((4 * values).round() / 4, chosen < 0.4) for values, chosen in draws((10,), (10,), times=5, uniform=True)
    )


separation = Check(
    "separation",
    _separation,
    _estimates,
    {
        "ties count half a win each.": lambda e, m: (e[m][:, None] > e[~m][None]).float().mean(),
        "ties count half; you count them as won.": lambda e, m: (e[m][:, None] >= e[~m][None]).float().mean(),
        "the pairs are the wrong way round: those that matter should win.": lambda e, m: 1 - _separation(e, m),
        "compare those that matter with those that do not, not with all.": lambda e, m: (
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
        "those had no gradient at some point; at *no* point is wanted.": lambda sizes: (sizes == 0).any(dim=0),
        "those did have a gradient at some point.": lambda sizes: (sizes > 0).any(dim=0),
        "those are points in training; dim=0 runs along them, and components are wanted.": lambda sizes: (
            sizes == 0
        ).all(dim=1),
    },
)
