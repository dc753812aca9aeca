"""APD and SPD by one yardstick: gradients that arrive, effects that are estimated, and what a step costs.

    gradient_sizes    which losses reach which components?
    gradient_flow     the same all through a training; replayed_flow, through the snapshots of a finished one
    effects           what does the output lose when a component goes? three estimates, and the measured truth
    errors_with       the error if only the components with the largest estimates stay
    rank_correlation  do an estimate and the truth put the components in the same order?
    separation        does an estimate put those that matter before those that do not?
    cost              milliseconds of a training step, and bytes it holds

A component of APD is a vector in parameter space, over all layers; a subcomponent of SPD belongs to one use of one
matrix. Here both are numbered 0 to n - 1, in SPD those of the first use first.
"""

import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata
from torch import Generator, Tensor

from pd_helpers import apd, metrics, spd
from pd_helpers.ablation import root_mean_square
from pd_helpers.experiments import Decomposed
from pd_helpers.runs import Run
from pd_helpers.training import generator, progress

CHUNK = 32
"""Components that are removed at a time."""


def losses_of(
    run: Run, x: Float[Tensor, "batch d_in"], draw: Generator, step: int | None = None
) -> apd.Losses | spd.Losses:
    """The run's own losses on one batch, with gradients; `draw` gives SPD's masks.

    `step` says how many components APD has active; None means where the run stands.
    """
    if run.importance:
        return spd.batch_losses(run.components, run.importance, x, run.config, draw)
    if step is None:
        step = run.state.step if run.state else run.config.steps
    n_active = round(run.config.n_active(step) * len(x) / run.config.batch_size)
    return apd.batch_losses(run.components, x, run.config, n_active)


def gradient_sizes(
    run: Run, x: Float[Tensor, "batch d_in"], draw: Generator, step: int | None = None
) -> dict[str, Float[Tensor, " n"]]:
    """Loss → length of its gradient in the U and V of each component, over all layers; arguments as of `losses_of`.

    In SPD, of each subcomponent; one whose matrix is used twice is one entry.
    """
    sizes = {}
    for name, loss in losses_of(run, x, draw, step)._asdict().items():
        if loss.requires_grad:
            factors = run.components.factors  # U and V of the first layer, of the second, ...
            found = torch.autograd.grad(loss, factors, retain_graph=True, materialize_grads=True)
            squares = [gradient.square().flatten(1).sum(dim=1) for gradient in found]
            layers = [u + v for u, v in zip(squares[::2], squares[1::2], strict=True)]
            sizes[name] = (torch.cat(layers) if run.importance else torch.stack(layers).sum(dim=0)).sqrt().cpu()
    return sizes


class GradientFlow(NamedTuple):
    """Gradients all through a training run."""

    steps: Int[Tensor, " points"]
    sizes: dict[str, Float[Tensor, "points n"]]
    """Loss → lengths, see `gradient_sizes`."""

    def reached(self, *losses: str) -> Float[Tensor, " n"]:
        """Share of the points at which any of these losses had a gradient in the component."""
        return torch.stack([self.sizes[name] > 0 for name in losses]).any(dim=0).float().mean(dim=0)


def gradient_flow(run: Run, every: int = 1, until: int | None = None, show_progress: bool = True) -> GradientFlow:
    """Train a prepared run to its end, or until that step, and measure gradients on a fresh batch every so many steps.

    Where several initialisations are tried, the measuring begins when one is chosen.

    >>> flow = gradient_flow(pdh.prepare("apd/tms_5-2", seed=0), every=10)
    >>> flow.reached("minimality", "simplicity")

    Raises ValueError for an `until` before the first point or after the last step.
    """
    first = run.config.start_steps if run.alternatives else 0
    until = run.config.steps if until is None else until
    if not first + every <= until <= run.config.steps:
        raise ValueError(f"until must be between {first + every} and {run.config.steps}, but is {until}")
    draw = generator(run.seed, "evaluation", run.device)
    points: list[int] = []
    found: list[dict[str, Tensor]] = []
    total = run.remaining - (run.config.steps - until)
    steps = itertools.islice(run.steps(), total)
    for _ in progress(steps, total=total, description="gradients", show=show_progress):
        if run.state.step % every == 0 and not run.alternatives:
            points.append(run.state.step)
            found.append(gradient_sizes(run, run.data(run.config.batch_size, draw), draw))
    return GradientFlow(torch.tensor(points), {name: torch.stack([one[name] for one in found]) for name in found[0]})


def replayed_flow(run: Run) -> GradientFlow:
    """The gradients at each snapshot of an APD run, on a fresh batch each.

    Raises ValueError for an SPD run, whose snapshots lack its importances.
    """
    if run.importance:
        raise ValueError("run must be an APD run: snapshots hold U and V alone; gradient_flow trains an SPD run anew")
    draw, own = generator(run.seed, "evaluation", run.device), [p.detach().clone() for p in run.components.factors]
    found = []
    try:
        for snapshot in run.snapshots:
            for path, layer in run.components.layers.items():
                layer.U.data, layer.V.data = (factor.to(layer.U) for factor in snapshot.factors[path])
            found.append(gradient_sizes(run, run.data(run.config.batch_size, draw), draw, snapshot.step))
    finally:
        for p, before in zip(run.components.factors, own, strict=True):
            p.data = before
    steps = torch.tensor([snapshot.step for snapshot in run.snapshots])
    return GradientFlow(steps, {name: torch.stack([one[name] for one in found]) for name in found[0]})


@torch.no_grad()
def alive(run: Run, n_inputs: int = 20_000) -> Bool[Tensor, " n"]:
    """Which components are active on some of so many inputs; in SPD, in any use of their matrix."""
    x = run.data(n_inputs, generator(run.seed, "evaluation", run.device))
    x, _ = run.components.merge_empty_rows(x)
    used: dict[str, Tensor] = {}
    for path, g in run.importances(x, n_inputs).items():
        layer = run.components.uses[path].layer if run.importance else ""
        used[layer] = used.get(layer, False) | metrics.alive(g)
    return torch.cat(list(used.values())).cpu()


class Effects(NamedTuple):
    """What each output loses with each component, root mean square over outputs, as in APD's eq. 8."""

    gradient: Float[Tensor, "rows n"]
    """First order: the derivative by the component's mask, where all masks are 1."""
    integrated: Float[Tensor, "rows n"]
    """The derivative averaged on the straight way from all masks 0 to all masks 1 (integrated gradients)."""
    alone: Float[Tensor, "rows n"]
    """Measured: it is removed, all others stay."""
    company: Float[Tensor, "rows n"]
    """Measured: it is removed while a random half of the others is off; root mean square over draws too."""
    importance: Float[Tensor, "rows n"] | None
    """SPD's learned causal importances."""


@torch.no_grad()
def effects(
    run: Decomposed, x: Float[Tensor, "rows d_in"], draw: Generator, n_draws: int = 16, n_points: int = 16
) -> Effects:
    """Estimates of what components do to the output on these inputs, and what they do.

    Args:
        run: a finished run.
        x: inputs.
        draw: says which others are off, in `n_draws` draws.
        n_points: points on the way of the integrated gradients, in the middle of as many equal pieces.
    """
    model = run.components
    x = x.to(model.factors[0])
    g = torch.cat(list(run.importances(x).values()), dim=1) if run.importance else None
    n = g.shape[1] if run.importance else next(iter(model.layers.values())).C
    ones, each = x.new_ones(len(x), n), torch.eye(n, device=x.device, dtype=x.dtype)

    def output(masks: Tensor) -> Tensor:
        return _output(run, x, masks)

    def derivative(at: Tensor) -> Tensor:
        def along(one: Tensor) -> Tensor:
            return torch.func.jvp(output, (at,), (one.expand_as(at),))[1]

        return torch.func.vmap(along, chunk_size=CHUNK)(each)

    def removed(context: Tensor) -> Tensor:
        """f(context with c on) - f(context with c off): what is on goes off, what is off comes on."""

        def flipped(one: Tensor) -> Tensor:
            return output(context + one * (1 - 2 * context))

        change = output(context) - torch.func.vmap(flipped, chunk_size=CHUNK)(each)  # (n, rows, d_output)
        return change * (2 * context - 1).T.unsqueeze(-1)

    middles = (torch.arange(n_points) + 0.5) / n_points
    company = [
        root_mean_square(removed(torch.randint(2, ones.shape, generator=draw, device=draw.device).to(ones)))
        for _ in range(n_draws)
    ]
    return Effects(
        root_mean_square(derivative(ones)),
        root_mean_square(sum(derivative(t * ones) for t in middles.tolist()) / n_points),
        root_mean_square(removed(ones)),
        torch.stack(company).square().mean(dim=0).sqrt(),
        g,
    )


@torch.no_grad()
def errors_with(
    run: Decomposed, x: Float[Tensor, "rows d_in"], estimate: Float[Tensor, "rows n"], counts: Sequence[int]
) -> list[float]:
    """Mean squared error against the target's output with only the first k components on, for each k.

    On every input those come first that have the largest estimate; all others are off.
    """
    rank = estimate.argsort(dim=1, descending=True).argsort(dim=1)  # (rows, n), 0 for the largest
    x = x.to(run.components.factors[0])
    target = run.target(x)
    return [(_output(run, x, (rank < k).to(x)) - target).square().mean().item() for k in counts]


def rank_correlation(estimate: Float[Tensor, "rows n"], truth: Float[Tensor, "rows n"]) -> Float[Tensor, " rows"]:
    """Spearman's rank correlation over components, for each input; equal values share the mean of their ranks.

    NaN where all components are alike.
    """
    a, b = (ranks - ranks.mean(dim=1, keepdim=True) for ranks in map(_ranks, (estimate, truth)))
    return ((a * b).sum(dim=1) / (a.square().sum(dim=1) * b.square().sum(dim=1)).sqrt()).float()


def separation(estimate: Float[Tensor, "rows n"], matters: Bool[Tensor, "rows n"]) -> Float[Tensor, " rows"]:
    """The chance that the estimate puts one that matters before one that does not, for each input; equal counts half.

    That is the area under the ROC curve: 0.5 for a coin, 1 if some threshold tells them apart. NaN where all components
    matter, or none.
    """
    positive = matters.sum(dim=1).double().cpu()
    above = (_ranks(estimate) * matters.cpu()).sum(dim=1) - positive * (positive + 1) / 2
    return (above / (positive * (matters.shape[1] - positive))).float()


def _ranks(values: Float[Tensor, "rows n"]) -> Float[Tensor, "rows n"]:
    return torch.from_numpy(rankdata(values.cpu().numpy(), axis=1))


def _output(run: Decomposed, x: Float[Tensor, "rows d_in"], masks: Float[Tensor, "rows n"]) -> Tensor:
    split = run.importance.split(masks) if run.importance else dict.fromkeys(run.components.uses, masks)
    return run.components(x, split).output


class Cost(NamedTuple):
    """What a training step takes on this machine."""

    milliseconds: float
    """Median."""
    megabytes: float
    """Numbers that the forward pass keeps for the backward pass."""


def cost(run: Run, n_steps: int = 5) -> Cost:
    """Take a few steps of a prepared run, one more to get going."""
    held: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        held[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    draw = generator(run.seed, "evaluation", run.device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        kept = losses_of(run, run.data(run.config.batch_size, draw), draw)  # keeps them all alive, so none is reused
    del kept
    seconds, steps = [], run.steps()
    for _ in range(n_steps + 1):
        began = time.perf_counter()
        next(steps)
        seconds.append(time.perf_counter() - began)
    return Cost(1000 * float(np.median(seconds[1:])), sum(held.values()) / 1e6)
