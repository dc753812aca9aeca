"""Exercises on building SPD (notebook 12): its losses, an importance function, and a leaky sigmoid."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_helpers.core import causal_importance, losses
from pd_helpers.course.kit.check import Check, draws

Matrices = Mapping[str, Tensor]


def _matrices() -> list[tuple[Matrices, Matrices]]:
    shapes = {"W_in": (5, 8), "W_out": (3, 5)}
    cases = draws(*shapes.values(), *shapes.values())
    return [tuple(dict(zip(shapes, pair, strict=True)) for pair in (case[:2], case[2:])) for case in cases]


faithfulness = Check(
    "faithfulness",
    losses.faithfulness,
    lambda: tuple(_matrices()),
    {
        "that is the mean of the matrices' means; every *parameter* should count the same.": lambda targets, sums: (
            torch.stack([F.mse_loss(sums[name], W) for name, W in targets.items()]).mean()
        ),
        "that is the sum of the matrices' means; divide once, by the number of all parameters.": lambda targets, sums: (
            torch.stack([F.mse_loss(sums[name], W) for name, W in targets.items()]).sum()
        ),
        "you summed the squares; divide by the number of parameters.": lambda targets, sums: sum(
            (sums[name] - W).square().sum() for name, W in targets.items()
        ),
        "you used only one matrix; go over all of them.": lambda targets, sums: F.mse_loss(
            sums["W_in"], targets["W_in"]
        ),
    },
)
gate = Check(
    "gate",
    lambda h, w_in, b_in, w_out, b_out: (F.gelu(h[:, :, None] * w_in + b_in) * w_out).sum(dim=2) + b_out,
    lambda: tuple(draws((6, 4), (4, 3), (4, 3), (4, 3), (4,))),
    {
        "the GELU is missing.": lambda h, w_in, b_in, w_out, b_out: (
            ((h[:, :, None] * w_in + b_in) * w_out).sum(dim=2) + b_out
        ),
        "the output bias b_out is missing.": lambda h, w_in, b_in, w_out, b_out: (
            F.gelu(h[:, :, None] * w_in + b_in) * w_out
        ).sum(dim=2),
        "the hidden bias b_in goes inside the GELU.": lambda h, w_in, b_in, w_out, b_out: (
            ((F.gelu(h[:, :, None] * w_in) + b_in) * w_out).sum(dim=2) + b_out
        ),
        "the hidden bias b_in is missing.": lambda h, w_in, b_in, w_out, b_out: (
            (F.gelu(h[:, :, None] * w_in) * w_out).sum(dim=2) + b_out
        ),
        "sum over the hidden units; you took their mean.": lambda h, w_in, b_in, w_out, b_out: (
            (F.gelu(h[:, :, None] * w_in + b_in) * w_out).mean(dim=2) + b_out
        ),
    },
)
upper_leaky = Check(
    "upper_leaky",
    causal_importance.upper_leaky,
    lambda: tuple((2 * x,) for (x,) in draws((12,))),
    {
        "that is the hard sigmoid without a leak; above 1 the slope must be 0.01.": causal_importance.hard_sigmoid,
        "the leak is on the wrong side: it belongs above 1.": causal_importance.lower_leaky,
        "your function jumps at 1, where the leak must start at the value 1: write 1 + 0.01 (Γ - 1).": (
            lambda x: torch.where(x > 1, 0.01 * x, x.clamp(min=0))
        ),
        "below 0 the value must be 0, the lowest importance there is.": lambda x: torch.where(
            x > 1, 1 + 0.01 * (x - 1), x
        ),
    },
)


def _recon_layerwise(forward: Callable[[Matrices], Tensor], masks: Matrices, y: Tensor) -> Tensor:
    return torch.stack([F.mse_loss(forward({use: m}), y) for use, m in masks.items()]).mean()


def _networks() -> list[tuple[Callable[[Matrices], Tensor], Matrices, Tensor]]:
    """Networks of three layers, masks for each of their uses, and their outputs without masks."""

    def network(x: Tensor, *weights: Tensor) -> Callable[[Matrices], Tensor]:
        def forward(masks: Matrices) -> Tensor:
            a = x
            for use, W in zip(("first", "second", "third"), weights, strict=True):
                a = torch.tanh(a @ W) * masks.get(use, 1)
            return a

        return forward

    cases = []
    for *tensors, first, second, third in draws((6, 3), (3, 4), (4, 5), (5, 2), (6, 4), (6, 5), (6, 2)):
        forward, masks = network(*tensors), {"first": first, "second": second, "third": third}
        cases.append((forward, {use: m.sigmoid() for use, m in masks.items()}, forward({})))
    return cases


recon_layerwise = Check(
    "recon_layerwise",
    _recon_layerwise,
    lambda: tuple(_networks()),
    {
        "you masked all uses at once, which is the other loss; mask one and leave the rest as they are.": (
            lambda forward, masks, y: F.mse_loss(forward(masks), y)
        ),
        "take the mean over uses; you took the sum.": lambda forward, masks, y: (
            _recon_layerwise(forward, masks, y) * len(masks)
        ),
        "you left one use out and masked the rest; mask one and leave the rest.": lambda forward, masks, y: torch.stack(
            [F.mse_loss(forward({u: m for u, m in masks.items() if u != use}), y) for use in masks]
        ).mean(),
        "you averaged the outputs before comparing; compare each with y, then average.": lambda forward, masks, y: (
            F.mse_loss(torch.stack([forward({use: m}) for use, m in masks.items()]).mean(dim=0), y)
        ),
    },
)
