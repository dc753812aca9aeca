"""Exercises on the hand-written network (notebook 10)."""

import torch
from torch import Tensor

from pd_helpers.checks.check import Check, draws


def _labelled() -> tuple[tuple[Tensor, Tensor, int], ...]:
    owner = torch.tensor([[0, 1, -1], [0, -1, 2], [1, 1, -1], [2, 0, 0]])
    return tuple((P, owner, i) for i, (P,) in enumerate(draws((4, 3))))


relative_error = Check(
    "relative_error",
    lambda found, wanted: (found - wanted).square().mean() / wanted.square().mean(),
    lambda: tuple(draws((20,), (20,))),
    {
        "that is the error itself; divide by the mean square of what was wanted.": lambda found, wanted: (
            (found - wanted).square().mean()
        ),
        "a ratio of roots: leave the squares as they are.": lambda found, wanted: (
            (found - wanted).square().mean() / wanted.square().mean()
        ).sqrt(),
        "you divided by the variance; silence, not the mean, is what gets 1 here.": lambda found, wanted: (
            (found - wanted).square().mean() / (wanted - wanted.mean()).square().mean()
        ),
        "divide by what was wanted, not by what was found.": lambda found, wanted: (
            (found - wanted).square().mean() / found.square().mean()
        ),
    },
)

waking_share = Check(
    "waking_share",
    lambda t: 5 / (10 - t),
    lambda: ((-5 / 9,), (0.0,), (2.0,), (4.4,)),
    {
        "the best x is the largest, 5, not 0.": lambda t: 5 / (5 - t),
        "the share falls on x as well: f (x + 5 - t), not x + f (5 - t).": lambda t: 0.0,
        "mind the sign of t: a ramp that starts later needs more.": lambda t: 5 / (10 + t),
    },
)

purity = Check(
    "purity",
    lambda P, owner, i: P.square()[owner == i].sum() / P.square().sum(),
    _labelled,
    {
        "squares, not absolute values.": lambda P, owner, i: P.abs()[owner == i].sum() / P.abs().sum(),
        "that is the share of the number of weights; weigh each by its square.": lambda P, owner, i: (
            (owner == i).float().mean()
        ),
        "divide by all of the component, not only by what serves some function.": lambda P, owner, i: (
            P.square()[owner == i].sum() / P.square()[owner >= 0].sum()
        ),
    },
)
