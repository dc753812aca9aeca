"""What are the subcomponents of a matrix that all features share, such as W_out of a residual MLP?

co_activation     when one subcomponent matters, how often does another one matter too?
axis_alignment    does a direction follow one axis, that is one neuron, or many?
errors_without    the error as more and more of some subcomponents are switched off
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pd_helpers.analysis import metrics
from pd_helpers.analysis.decomposed import Decomposed


def co_activation(g: Float[Tensor, "rows C"], threshold: float = metrics.ALIVE) -> Float[Tensor, "C C"]:
    """Entry (i, j) is the share on which j is important of the rows on which i is; NaN if i is never important."""
    on = (g > threshold).to(g.dtype)
    return on.T @ on / on.sum(dim=0)[:, None]


def axis_alignment(directions: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """The largest |cosine| of each direction with an axis: 1 for a single neuron, 1/√d if all d are alike."""
    return directions.abs().amax(dim=1) / directions.norm(dim=1)


@torch.no_grad()
def errors_without(
    run: Decomposed,
    x: Float[Tensor, "rows d_in"],
    order: Mapping[str, Int[Tensor, "rows n"]],
    counts: Sequence[int],
) -> list[float]:
    """Mean squared error against the target's output with k subcomponents of each use off, for each k in `counts`.

    `order` maps uses to a list of subcomponents for each row, in the order in which they are switched off. All other
    subcomponents, and all other uses, stay on.
    """
    target_output, errors = run.components.target_forward(x).output, []
    for k in counts:
        masks = {
            use: torch.ones(len(x), run.components.layers[run.components.uses[use].layer].C).scatter_(
                1, ranking[:, :k], 0.0
            )
            for use, ranking in order.items()
        }
        errors.append((run.components(x, masks).output - target_output).square().mean().item())
    return errors
