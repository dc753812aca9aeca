"""Decompositions under attack: ladders of ever longer attacks, robustness against sparsity, and a lookup table."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers.analysis import metrics
from pd_helpers.analysis.attacks import RUNGS, attack
from pd_helpers.analysis.decomposed import Decomposed
from pd_helpers.core.training import generator, progress
from pd_helpers.runs.api import run as run_preset
from pd_helpers.runs.presets import preset
from pd_helpers.runs.run import Run
from pd_helpers.runs.shipped import shipped
from pd_helpers.runs.sweeps import points_of

if TYPE_CHECKING:
    import pandas

LONG = 20
"""From so many steps on, steps are of one size, and a shorter attack is the beginning of a longer one."""
N_INPUTS = 1000
"""Inputs that are attacked together."""


def inputs(run: Decomposed, n: int = N_INPUTS) -> Float[Tensor, "inputs d_in"]:
    """The n inputs of the run's data that are attacked; always the same for one seed and target."""
    return run.data(n, generator(run.seed, "evaluation"))


def ladder(run: Decomposed, x: Tensor, scope: str = "shared", rungs: Sequence[int] = RUNGS) -> dict[int, float]:
    """Number of steps → error that an attack of so many steps reaches; each starts from the same random sources."""
    errors = {n: attack(run, x, n, scope, show_progress=False).error for n in rungs if n < LONG}
    long = [n for n in rungs if n >= LONG]
    if long:
        trajectory = attack(run, x, max(long), scope, show_progress=False).trajectory
        errors |= {n: trajectory[n].item() for n in long}
    return errors


@torch.no_grad()
def scale(run: Decomposed, x: Tensor) -> float:
    """The error of a network whose decomposed matrices are all zero, with which an attack's error can be compared."""
    model = run.components
    nothing = {use: torch.zeros_like(g) for use, g in run.importances(x).items()}
    return (model(x, nothing).output - model.target_forward(x).output).square().mean().item()


def ladders(
    grid: Mapping[str, Sequence], *, rungs: Sequence[int] = RUNGS, show_progress: bool = True
) -> "pandas.DataFrame":
    """Ladders of shipped runs, from a grid over `run`, "name" or "name:variant", and `scope`.

    Returns one row for each run, scope and rung: `run`, `scope`, `steps`, `attacked`, the error that an attack of so
    many steps reaches; and of the run `l0` and `scale`, as the functions of these names give them.
    """
    import pandas

    rows, points = [], points_of(grid)
    for point in progress(points, total=len(points), description="ladders", show=show_progress, unit="run"):
        run = shipped(*point["run"].split(":"))
        began, x = time.perf_counter(), inputs(run)
        errors = ladder(run, x, point["scope"], rungs)
        facts = {"l0": l0(run, x), "scale": scale(run, x), "seconds": time.perf_counter() - began, "error": None}
        rows += [point | {"steps": n, "attacked": error} | facts for n, error in errors.items()]
    return pandas.DataFrame(rows)


def l0(run: Decomposed, x: Tensor) -> float:
    """Mean number of components above 0.1 on an input, added up over all uses of the decomposed matrices."""
    return sum(metrics.l0(g) for g in run.importances(x).values())


def sparsity(
    grid: Mapping[str, Sequence], *, attack_steps: int = 320, show_progress: bool = True, **settings: Any
) -> "pandas.DataFrame":
    """Train at every point of a grid over `name`, a preset of SPD or VPD, `share` and `seed`, and attack.

    `share` multiplies the preset's coefficients of importance and, for VPD, of frequency. Returns one row for each
    point, with `l0`, the error `attacked` of a shared attack, `mmcs`, and `n_alive` in the first use.
    """
    import pandas

    rows, points = [], points_of(grid)
    for point in progress(points, total=len(points), description="sparsity", show=show_progress, unit="run"):
        began = time.perf_counter()
        run = at_share(**point, **settings)
        x = inputs(run)
        found = {
            "l0": l0(run, x),
            "attacked": attack(run, x, attack_steps, show_progress=False).error,
            "random": attack(run, x, 0, show_progress=False).error,
            "mmcs": run.metrics["mmcs"],
            "n_alive": next(iter(run.metrics["n_alive"].values())),
        }
        rows.append(point | found | {"seconds": time.perf_counter() - began, "error": None})
    return pandas.DataFrame(rows)


def at_share(name: str, share: float, seed: int, **settings: Any) -> Run:
    """A run of a preset, with other settings, and this multiple of the coefficients that make importances small."""
    config = preset(name).config
    changed = {f: share * getattr(config, f) for f in ("importance_coeff", "frequency_coeff") if hasattr(config, f)}
    return run_preset(name, seed, device="cpu", show_progress=False, **settings | changed)


def lookup(W: Float[Tensor, "d_out d_in"], x: Float[Tensor, "inputs d_in"]) -> Float[Tensor, "inputs d_out d_in"]:
    """A component for every input, W x xᵀ / ‖x‖², which does on that input what W does."""
    return torch.einsum("oi,ni,nj->noj", W, x, x) / x.square().sum(dim=1)[:, None, None]
