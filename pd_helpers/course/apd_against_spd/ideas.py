"""Which components receive gradients from which losses, and how much a training step costs (notebook 16).

gradient_sizes     which losses have gradients in which components?
gradient_flow      these gradients all through a training run
replayed           a finished run as it was at each of its snapshots
replayed_flow      these gradients at the snapshots of a finished run
removals           how far does the output move if a component is really removed?
train_by_removal   APD with these effects in the place of its attributions
cost               time and memory of a training step
"""

import itertools
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from pd_helpers.analysis import ablation
from pd_helpers.core.training import generator, progress
from pd_helpers.runs.run import Run


def gradient_sizes(
    run: Run, x: Float[Tensor, "batch d_in"], draw: Generator, step: int | None = None
) -> dict[str, Float[Tensor, " n"]]:
    """Loss → length of its gradient with respect to U and V of each component.

    A component that spans layers has one entry, and so has each subcomponent, even if its matrix is used twice. Masks,
    if the method has any, are drawn from `draw`. `step` is the training step for settings that change during training,
    by default the present one.
    """
    sizes = {}
    for name, loss in run.method.batch_losses(x, draw, step)._asdict().items():
        if loss.requires_grad:
            factors = run.components.factors  # U and V of the first layer, of the second, ...
            gradients = torch.autograd.grad(loss, factors, retain_graph=True, materialize_grads=True)
            squares = [gradient.square().flatten(1).sum(dim=1) for gradient in gradients]
            layers = [u + v for u, v in zip(squares[::2], squares[1::2], strict=True)]
            joint = run.method.spans_layers
            sizes[name] = (torch.stack(layers).sum(dim=0) if joint else torch.cat(layers)).sqrt().cpu()
    return sizes


class GradientFlow(NamedTuple):
    """Gradients all through a training run."""

    steps: Int[Tensor, " points"]
    """Training steps at which gradients were measured."""
    sizes: dict[str, Float[Tensor, "points n"]]
    """Loss → lengths of gradients; see `gradient_sizes`."""

    def reached(self, *losses: str) -> Float[Tensor, " n"]:
        """For each component, the share of points at which at least one of these losses had a gradient in it."""
        return torch.stack([self.sizes[name] > 0 for name in losses]).any(dim=0).float().mean(dim=0)


def gradient_flow(run: Run, every: int = 1, until: int | None = None, show_progress: bool = True) -> GradientFlow:
    """Train a prepared run to its end or to the step `until`, and measure gradients on a new batch every `every` steps.

    If several initialisations are tried, measurements begin when one of them has been chosen.

    >>> flow = gradient_flow(pdh.prepare("apd/tms_5-2", seed=0), every=10)
    >>> flow.reached("minimality", "simplicity")

    Raises ValueError if `until` is before the first measurement or after the last step.
    """
    first = run.config.selection_steps if len(run.candidates) > 1 else 0
    until = run.config.steps if until is None else until
    if not first + every <= until <= run.config.steps:
        raise ValueError(f"until must be between {first + every} and {run.config.steps}, but is {until}")
    draw = generator(run.seed, "evaluation", run.device)
    points: list[int] = []
    sizes: list[dict[str, Tensor]] = []
    total = run.remaining - (run.config.steps - until)
    steps = itertools.islice(run.steps(), total)
    for _ in progress(steps, total=total, description="gradients", show=show_progress):
        if run.step % every == 0 and len(run.candidates) == 1:
            points.append(run.step)
            sizes.append(gradient_sizes(run, run.data(run.config.batch_size, draw), draw))
    return _flow(points, sizes)


def replayed(run: Run) -> Iterator[int]:
    """Give the run the U and V of each of its snapshots, one after another, and at the end its own again.

    Yields the step of the snapshot that the run now shows.
    """
    originals = [factor.detach().clone() for factor in run.components.factors]
    try:
        for snapshot in run.snapshots:
            for path, layer in run.components.layers.items():
                layer.U.data, layer.V.data = (factor.to(layer.U) for factor in snapshot.factors[path])
            yield snapshot.step
    finally:
        for factor, original in zip(run.components.factors, originals, strict=True):
            factor.data = original


def replayed_flow(run: Run) -> GradientFlow:
    """The gradients at each snapshot of an APD run, on a new batch for each.

    Raises ValueError for an SPD run, because snapshots do not contain the importance functions.
    """
    if run.importance is not None:
        raise ValueError("run must be an APD run: snapshots hold U and V alone; gradient_flow trains an SPD run anew")
    draw = generator(run.seed, "evaluation", run.device)
    steps, sizes = [], []
    for step in replayed(run):
        steps.append(step)
        sizes.append(gradient_sizes(run, run.data(run.config.batch_size, draw), draw, step))
    return _flow(steps, sizes)


def _flow(steps: list[int], sizes: list[dict[str, Tensor]]) -> GradientFlow:
    tables = {name: torch.stack([at_point[name] for at_point in sizes]) for name in sizes[0]}
    return GradientFlow(torch.tensor(steps), tables)


@torch.no_grad()
def removals(run: Run, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows C"]:
    """How far the output moves when a component is removed while all others stay on, root mean square over outputs."""
    model = run.components
    P = {path: layer.P for path, layer in model.layers.items()}
    return ablation.root_mean_square(ablation.ablated(run.target, x, P, model.sums))


def train_by_removal(run: Run) -> Run:
    """Train a prepared APD run of one initialisation to its end, with `removals` in the place of attributions."""
    run.method.attributions = lambda x: removals(run, x)  # hides the method's own
    try:
        for _ in run.steps():
            pass
    finally:
        del run.method.attributions
    return run


class Cost(NamedTuple):
    """Time and memory of a training step on this machine."""

    milliseconds: float
    """Median time of a step."""
    megabytes: float
    """Memory of all tensors that the forward pass stores for the backward pass."""


def cost(run: Run, n_steps: int = 5) -> Cost:
    """Measure `n_steps` training steps of a prepared run, after one that is not counted."""
    storages: dict[int, int] = {}  # address → bytes

    def count(t: Tensor) -> Tensor:
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    draw = generator(run.seed, "evaluation", run.device)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        losses = run.method.batch_losses(run.data(run.config.batch_size, draw), draw)  # held, so no address is reused
    del losses
    seconds, steps = [], run.steps()
    for _ in range(n_steps + 1):
        began = time.perf_counter()
        next(steps)
        seconds.append(time.perf_counter() - began)
    return Cost(1000 * float(np.median(seconds[1:])), sum(storages.values()) / 1e6)
