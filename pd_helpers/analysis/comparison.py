"""Comparing decompositions by any method: estimates of what components do to the output, and measurements of it.

    alive              which components are active on some input?
    effects            how much does the output change without a component? three estimates and two measurements
    errors_with        the error if only the components with the largest estimates are on
    rank_correlation   do an estimate and a measurement put the components in the same order?
    separation         does an estimate put the components that matter before those that do not?

A component of APD is a vector in parameter space and spans all layers; a subcomponent of SPD belongs to one use of one
matrix. Here both are numbered from 0 to n − 1; in SPD the subcomponents of the first use come first (`Method.split`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Generator, Tensor

from pd_helpers.analysis import metrics
from pd_helpers.analysis.ablation import root_mean_square
from pd_helpers.analysis.decomposed import Decomposed
from pd_helpers.core.training import generator

CHUNK = 32
"""Number of components whose removal is computed at a time, which limits the memory needed."""


@torch.no_grad()
def alive(run: Decomposed, n_inputs: int = 20_000) -> Bool[Tensor, " n"]:
    """Which components are active on at least one of `n_inputs` inputs; in SPD, in any use of their matrix."""
    x = run.data(n_inputs, generator(run.seed, "evaluation", run.components.factors[0].device))
    rows = run.components.merge_empty_rows(x).rows
    masks: dict[str, Tensor] = {}  # layer → (C,); all layers together where components span them
    for path, g in run.importances(rows, len(x)).items():
        layer = "" if run.method.spans_layers else run.components.uses[path].layer
        masks[layer] = masks.get(layer, False) | metrics.alive(g)
    return torch.cat(list(masks.values())).cpu()


class Effects(NamedTuple):
    """The effect of each component on the output: root mean square over outputs, as in APD's eq. 8."""

    gradient: Float[Tensor, "rows n"]
    """First-order estimate: the derivative with respect to the component's mask, where all masks are 1."""
    integrated: Float[Tensor, "rows n"]
    """Estimate by integrated gradients: that derivative, averaged over the straight line from masks of 0 to 1."""
    alone: Float[Tensor, "rows n"]
    """Measured: the component is removed while all others stay on."""
    company: Float[Tensor, "rows n"]
    """Measured: the component is removed while a random half of the others is off; root mean square over draws too."""
    importance: Float[Tensor, "rows n"] | None
    """SPD's learned causal importances; None for a method that learns none."""


@torch.no_grad()
def effects(
    run: Decomposed, x: Float[Tensor, "rows d_in"], draw: Generator, n_draws: int = 16, n_points: int = 16
) -> Effects:
    """Estimated and measured effects of all components on the output for these inputs.

    Args:
        run: a finished run.
        x: inputs.
        draw: source of the random halves that are off while `company` is measured.
        n_draws: number of these random halves.
        n_points: number of points at which gradients are averaged for `integrated`, by the midpoint rule.
    """
    model = run.components
    x = x.to(model.factors[0])
    n = run.method.n_components
    g = None if run.method.importance is None else run.method.join(run.importances(x))
    ones, units = x.new_ones(len(x), n), torch.eye(n, device=x.device, dtype=x.dtype)

    def output(masks: Tensor) -> Tensor:
        return _output(run, x, masks)

    def derivatives(masks: Tensor) -> Tensor:
        def derivative(unit: Tensor) -> Tensor:
            return torch.func.jvp(output, (masks,), (unit.expand_as(masks),))[1]

        return torch.func.vmap(derivative, chunk_size=CHUNK)(units)

    def removals(masks: Tensor) -> Tensor:
        """f(masks with c on) - f(masks with c off), computed by switching c to its other state."""

        def output_switched(unit: Tensor) -> Tensor:
            return output(masks + unit * (1 - 2 * masks))

        change = output(masks) - torch.func.vmap(output_switched, chunk_size=CHUNK)(units)  # (n, rows, d_output)
        return change * (2 * masks - 1).T.unsqueeze(-1)

    midpoints = (torch.arange(n_points) + 0.5) / n_points
    company = [
        root_mean_square(removals(torch.randint(2, ones.shape, generator=draw, device=draw.device).to(ones)))
        for _ in range(n_draws)
    ]
    return Effects(
        root_mean_square(derivatives(ones)),
        root_mean_square(sum(derivatives(t * ones) for t in midpoints.tolist()) / n_points),
        root_mean_square(removals(ones)),
        torch.stack(company).square().mean(dim=0).sqrt(),
        g,
    )


@torch.no_grad()
def errors_with(
    run: Decomposed, x: Float[Tensor, "rows d_in"], estimate: Float[Tensor, "rows n"], counts: Sequence[int]
) -> list[float]:
    """Mean squared error against the target's output with only k components on, for each k in `counts`.

    On every input these are the k components with the largest estimates.
    """
    rank = estimate.argsort(dim=1, descending=True).argsort(dim=1)  # (rows, n), 0 for the largest
    x = x.to(run.components.factors[0])
    target = run.components.target_forward(x).output
    return [(_output(run, x, (rank < k).to(x)) - target).square().mean().item() for k in counts]


def rank_correlation(estimate: Float[Tensor, "rows n"], truth: Float[Tensor, "rows n"]) -> Float[Tensor, " rows"]:
    """Spearman's rank correlation over components, for each input; equal values share the mean of their ranks.

    NaN for inputs on which all components have the same value.
    """
    a, b = (ranks - ranks.mean(dim=1, keepdim=True) for ranks in map(_ranks, (estimate, truth)))
    return ((a * b).sum(dim=1) / (a.square().sum(dim=1) * b.square().sum(dim=1)).sqrt()).float()


def separation(estimate: Float[Tensor, "rows n"], matters: Bool[Tensor, "rows n"]) -> Float[Tensor, " rows"]:
    """For each input, the chance that a component that matters has a larger estimate than one that does not.

    Equal estimates count half. This is the area under the ROC curve: 0.5 for tossing a coin, and 1 if some threshold
    tells the two kinds apart. NaN for inputs on which all components matter, or none.
    """
    positive = matters.sum(dim=1).double().cpu()
    above = (_ranks(estimate) * matters.cpu()).sum(dim=1) - positive * (positive + 1) / 2
    return (above / (positive * (matters.shape[1] - positive))).float()


def _ranks(values: Float[Tensor, "rows n"]) -> Float[Tensor, "rows n"]:
    return torch.from_numpy(rankdata(values.cpu().numpy(), axis=1))


def _output(run: Decomposed, x: Float[Tensor, "rows d_in"], masks: Float[Tensor, "rows n"]) -> Tensor:
    return run.components(x, run.method.split(masks)).output
