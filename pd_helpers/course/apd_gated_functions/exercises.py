"""Exercises on the hand-written network (notebook 10): relative errors, weak control bits, and pure components."""

import torch
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws


def _labelled() -> tuple[tuple[Tensor, Tensor, int], ...]:
    small = torch.tensor([[3.0, 2.0], [-1.0, 1.0]]), torch.tensor([[0, 1], [0, -1]]), 0
    owner = torch.tensor([[0, 1, -1], [0, -1, 2], [1, 1, -1], [2, 0, 0]])
    owners = owner, owner.T, owner[:2], owner[1:]
    random = zip(draws([(4, 3)], [(3, 4)], [(2, 3)], [(3, 3)]), owners, (0, 1, 2, 3), strict=True)
    return (small, *((P, labels, i) for (P,), labels, i in random))


relative_error = Check(
    "relative_error",
    lambda output, target: (output - target).square().mean() / target.square().mean(),
    lambda: [
        (torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 0.0, 2.0])),
        *draws(((20,), (20,)), ((7,), (7,)), ((4,), (4,))),
    ],
    {
        "that is the error itself; divide it by the mean square of the target output.": lambda output, target: (
            (output - target).square().mean()
        ),
        "that is a ratio of roots; take the ratio of mean squares.": lambda output, target: (
            (output - target).square().mean() / target.square().mean()
        ).sqrt(),
        "you divided by the variance; an output of zero, not the mean output, has error 1 here.": (
            lambda output, target: (output - target).square().mean() / (target - target.mean()).square().mean()
        ),
        "divide by the mean square of the target output, not by that of the output.": lambda output, target: (
            (output - target).square().mean() / output.square().mean()
        ),
        "take squares and not absolute values.": lambda output, target: (
            (output - target).abs().mean() / target.abs().mean()
        ),
    },
)

waking_share = Check(
    "waking_share",
    lambda t: 5 / (10 - t),
    lambda: [(2.5,), (-5 / 9,), (0.0,), (4.4,)],
    {
        "the best x is the largest one, 5, and not 0.": lambda t: 5 / (5 - t),
        "the share applies to x as well: f (x + 5 - t), not x + f (5 - t).": lambda t: 0.0,
        "mind the sign of t: a ramp that starts later needs a larger share.": lambda t: 5 / (10 + t),
    },
)

purity = Check(
    "purity",
    lambda P, owner, i: P.square()[owner == i].sum() / P.square().sum(),
    _labelled,
    {
        "add up squares, not absolute values.": lambda P, owner, i: P.abs()[owner == i].sum() / P.abs().sum(),
        "that is the share of the number of weights; weight each by its square.": lambda P, owner, i: (
            (owner == i).float().mean()
        ),
        "divide by all squared weights of the component, including those that serve no function.": lambda P, owner, i: (
            P.square()[owner == i].sum() / P.square()[owner >= 0].sum()
        ),
        "that is the share of all weights that have a function; take those of function i only.": lambda P, owner, i: (
            P.square()[owner >= 0].sum() / P.square().sum()
        ),
        "those are the squared weights themselves; divide by all squared weights of the component.": (
            lambda P, owner, i: P.square()[owner == i].sum()
        ),
    },
)
