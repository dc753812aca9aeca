"""Exercises on building SPD (notebook 12): its losses, an importance function, and a leaky sigmoid."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_helpers.core import causal_importance, losses
from pd_helpers.course.kit.check import Check, draws

Matrices = Mapping[str, Tensor]


def _matrices() -> list[tuple[Matrices, Matrices]]:
    """Target matrices and sums of components; in one case they stand in another order."""
    small = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[3.0]])}
    sums = {"a": torch.tensor([[0.0, 2.0]]), "b": torch.tensor([[5.0]])}
    cases = [(small, sums)]
    for shapes in ({"W_in": (5, 8), "W_out": (3, 5)}, {"0": (2, 3), "1": (4, 2), "2": (1, 4)}, {"W": (2, 5)}):
        tensors = draws([*shapes.values(), *shapes.values()])[0]
        cases.append(
            tuple(dict(zip(shapes, half, strict=True)) for half in (tensors[: len(shapes)], tensors[len(shapes) :]))
        )
    first, second, third, fourth = draws(4 * [(3, 3)])[0]
    return [*cases, ({"first": first, "second": second}, {"second": third, "first": fourth})]


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
            sums[next(iter(targets))], targets[next(iter(targets))]
        ),
        "the two dictionaries may have another order; look up each matrix by its name.": lambda targets, sums: (
            losses.faithfulness(targets, dict(zip(targets, sums.values(), strict=True)))
        ),
        "add up squares, not absolute values.": lambda targets, sums: torch.cat(
            [(sums[name] - W).abs().flatten() for name, W in targets.items()]
        ).mean(),
        "that is the root of the mean square; leave the root out.": lambda targets, sums: losses.faithfulness(
            targets, sums
        ).sqrt(),
    },
)
gate = Check(
    "gate",
    lambda h, w_in, b_in, w_out, b_out: (F.gelu(h[:, :, None] * w_in + b_in) * w_out).sum(dim=2) + b_out,
    lambda: [
        tuple(torch.tensor(v) for v in ([[1.0, -1.0]], [[1.0], [2.0]], [[0.0], [1.0]], [[1.0], [3.0]], [0.5, 0.0])),
        *draws(*(((rows, C), (C, d), (C, d), (C, d), (C,)) for rows, C, d in ((6, 4, 3), (2, 5, 4), (3, 3, 3)))),
    ],
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
        "the activation is a GELU, and not a ReLU.": lambda h, w_in, b_in, w_out, b_out: (
            (F.relu(h[:, :, None] * w_in + b_in) * w_out).sum(dim=2) + b_out
        ),
        "b_out is added once for each piece, after the sum over hidden units.": lambda h, w_in, b_in, w_out, b_out: (
            F.gelu(h[:, :, None] * w_in + b_in) * w_out + b_out[:, None]
        ).sum(dim=2),
        "w_out multiplies what comes out of the GELU, not what goes in.": lambda h, w_in, b_in, w_out, b_out: (
            F.gelu((h[:, :, None] * w_in + b_in) * w_out).sum(dim=2) + b_out
        ),
    },
)
upper_leaky = Check(
    "upper_leaky",
    causal_importance.upper_leaky,
    lambda: [
        (torch.tensor([-1.0, 0.5, 3.0]),),
        (torch.tensor([[0.0, 1.0, 1.5], [-50.0, 50.0, 0.25]]),),
        *((2 * x,) for (x,) in draws([(12,)], [(4, 3)], [(2, 2, 3)])),
    ],
    {
        "that is the hard sigmoid without a leak; above 1 the slope must be 0.01.": causal_importance.hard_sigmoid,
        "the leak is on the wrong side: it belongs above 1.": causal_importance.lower_leaky,
        "your function jumps at 1, where the leak must start at the value 1: write 1 + 0.01 (Γ - 1).": (
            lambda x: torch.where(x > 1, 0.01 * x, x.clamp(min=0))
        ),
        "below 0 the value must be 0, the lowest importance there is.": lambda x: torch.where(
            x > 1, 1 + 0.01 * (x - 1), x
        ),
        "above 1 the slope must be 0.01, not 0.1.": lambda x: torch.where(x > 1, 1 + 0.1 * (x - 1), x.clamp(min=0)),
        "above 1 the slope must be 0.01; you have the slope 1 there as well.": F.relu,
        "it leaks above 1 only; below 0 the value must be 0.": lambda x: torch.where(
            x > 1, 1 + 0.01 * (x - 1), torch.where(x < 0, 0.01 * x, x)
        ),
        "that is the smooth sigmoid; this one consists of straight pieces.": torch.sigmoid,
    },
)


def _recon_layerwise(forward: Callable[[Matrices], Tensor], masks: Matrices, y: Tensor) -> Tensor:
    return torch.stack([F.mse_loss(forward({use: m}), y) for use, m in masks.items()]).mean()


def _networks() -> list[tuple[Callable[[Matrices], Tensor], Matrices, Tensor]]:
    """Networks, masks for each of their uses, and their outputs without masks."""

    def product(masks: Matrices) -> Tensor:
        """a network with the output 10 · a · b (masks a and b)"""
        return 10.0 * masks.get("a", torch.ones(1, 2)) * masks.get("b", torch.ones(1, 2))

    def network(x: Tensor, weights: dict[str, Tensor]) -> Callable[[Matrices], Tensor]:
        def forward(masks: Matrices) -> Tensor:
            a = x
            for use, W in weights.items():
                a = torch.tanh(a @ W) * masks.get(use, torch.ones(1)).float()
            return a

        return forward

    cases = [(product, {"a": torch.tensor([[0.9, 1.0]]), "b": torch.tensor([[0.5, 0.8]])}, product({}))]
    for rows, sizes in ((6, {"first": 4, "second": 5, "third": 2}), (2, {"0": 3}), (5, {"embed": 2, "unembed": 3})):
        d, shapes = 3, []
        for width in sizes.values():
            shapes.append((d, width))
            d = width
        x, *tensors = draws([(rows, 3), *shapes, *((rows, width) for width in sizes.values())])[0]
        forward = network(x, dict(zip(sizes, tensors, strict=False)))
        masks = {use: m.sigmoid() for use, m in zip(sizes, tensors[len(sizes) :], strict=True)}
        cases.append((forward, masks, forward({})))
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
        "you masked only one of the uses; go over all of them.": lambda forward, masks, y: F.mse_loss(
            forward(dict([next(iter(masks.items()))])), y
        ),
        "take the mean of the squared error over the output's entries; you took the sum.": lambda forward, masks, y: (
            _recon_layerwise(forward, masks, y) * y.numel()
        ),
    },
)
