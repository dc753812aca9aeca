"""Networks whose layers have many rows for an input: how much an input needs, and what it loses (notebook 17).

A row is whatever a layer's matrix is multiplied with: an input, the vector at a position, a patch of an image. Where an
input has several rows, importances g (inputs, *places, C) say which subcomponent is needed where.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pd_helpers.analysis import judging, metrics
from pd_helpers.runs.run import Run


def subcomponents_per_input(g: Float[Tensor, "inputs *places C"]) -> float:
    """Mean number of subcomponents per input that are important, above 0.1, at one place of it or more.

    `metrics.l0` is a mean over rows: a subcomponent that an input needs at ten places counts ten times there, and here
    once. Without places the two are the same.
    """
    somewhere = (g > metrics.ALIVE).flatten(1, -2).any(dim=1) if g.ndim > 2 else g > metrics.ALIVE
    return somewhere.sum(dim=-1).double().mean().item()


@torch.no_grad()
def ablation_costs(
    run: Run, x: Float[Tensor, "inputs ..."], labels: Int[Tensor, " inputs"]
) -> dict[tuple[str, int], Float[Tensor, " classes"]]:
    """(layer, subcomponent) → change of each class's accuracy once it is erased from the weights, at all of its places.

    Subcomponents that are never important on these inputs are left out.
    """
    before = judging.class_accuracy(run.target(x), labels)
    costs = {}
    for layer, g in run.importances(x).items():
        for c in metrics.alive(g).nonzero().flatten().tolist():
            costs[layer, c] = judging.class_accuracy(run.edited({layer: {c: 0.0}})(x), labels) - before
    return costs
