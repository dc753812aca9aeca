"""APD that begins at the mechanisms themselves: is it the objective that fails on gated functions, or the training?"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from pd_helpers import analysis
from pd_helpers.core.training import generator, progress
from pd_helpers.runs.api import prepare
from pd_helpers.runs.run import Run
from pd_helpers.runs.sweeps import points_of

if TYPE_CHECKING:
    import pandas

N_INPUTS = 20_000
"""Number of inputs on which the loss is measured."""


@torch.no_grad()
def weighted_losses(run: Run) -> dict[str, float]:
    """APD's losses times their coefficients, on inputs that are the same for every run of a seed."""
    draw = generator(run.seed, "evaluation")
    terms, config = run.method.batch_losses(run.data(N_INPUTS, draw), draw, run.config.steps), run.config
    names = ("faithfulness", "minimality", "simplicity")
    return {name: getattr(config, f"{name}_coeff") * getattr(terms, name).item() for name in names}


def total_loss(run: Run) -> float:
    """The sum of `weighted_losses`, which is what training minimises."""
    return sum(weighted_losses(run).values())


@torch.no_grad()
def asleep(run: Run) -> float:
    """Share of neurons awake in the target, on inputs with one bit on, that are asleep in the sparse network."""
    x = run.data(N_INPUTS, generator(run.seed, "evaluation"))
    with_one_bit = x[:, 1:].sum(dim=1) == 1
    masks = {use: active[with_one_bit] for use, active in run.importances(x).items()}
    x = x[with_one_bit]
    target, sparse = run.components.target_forward(x).inputs, run.components(x, masks).inputs
    readers = [use for use in masks if use.endswith("W_out")]  # which read the neurons' activations
    awake, still = (torch.cat([inputs[use] > 0 for use in readers], dim=1) for inputs in (target, sparse))
    return (awake & ~still).sum().item() / awake.sum().item()


def at_mechanisms(seed: int, **settings: float) -> Run:
    """A run whose components are the mechanisms at step 0."""
    plain = {"faithfulness_warmup_steps": 0, "top_k_start": None}  # which help a random beginning
    run = prepare("apd/gated", seed, device="cpu", show_progress=False, warm_up=False, **plain | settings)
    for path, components in analysis.mechanisms(run.target).items():
        run.components.layers[path].assign_(components)
    return run


STEPS_WATCHED = (0, 25, 50, 100, 200, 400, 800, 1600)
"""Steps after which `watched` looks."""


def watched(run: Run, after: Sequence[int] = STEPS_WATCHED, *, show_progress: bool = True) -> "pandas.DataFrame":
    """Train a run that stands at step 0 for a while, and look at it now and then.

    Returns one row for each of these steps: `step`, the weighted losses, their sum `total`, and `asleep`.
    """
    import pandas

    rows, steps = [], progress(run.steps(), total=after[-1], description="from the mechanisms", show=show_progress)
    for step in after:
        while run.step < step:
            next(steps)
        losses = weighted_losses(run)
        rows.append({"step": step, **losses, "total": sum(losses.values()), "asleep": asleep(run)})
    return pandas.DataFrame(rows)


def from_mechanisms(
    grid: Mapping[str, Sequence], *, show_progress: bool = True, **settings: float
) -> "pandas.DataFrame":
    """Train from the mechanisms at every point of a grid over `seed` and settings of APD.

    Returns one row for each point: the columns of the grid; `loss_before` and `loss_after` training; `n_served`, the
    number of functions with a component that computes them alone; `n_working`, the number of those that the active
    components compute together; `seconds`; and `error`, always None.
    """
    import pandas

    points = points_of(grid)
    rows = []
    for point in progress(points, total=len(points), description="gated", show=show_progress, unit="run"):
        began = time.perf_counter()
        run = at_mechanisms(**settings | point)
        loss_before = total_loss(run)
        run.train(show_progress=False)
        sparse = analysis.sparse_errors(run, N_INPUTS, generator(run.seed, "evaluation"))
        rows.append(
            point
            | {
                "loss_before": loss_before,
                "loss_after": total_loss(run),
                "n_served": int(run.metrics["n_served"]),
                "n_working": int((sparse <= analysis.SERVED).sum()),
                "seconds": time.perf_counter() - began,
                "error": None,
            }
        )
    return pandas.DataFrame(rows)
