"""Sweeps: the same experiment over a grid of settings, several runs at a time, as one tidy table.

    table = sweep("apd/tms_5-2", {"simplicity_coeff": [0.1, 0.7], "seed": range(5)})

Runs are distributed by joblib, over processes of this machine or over a Ray or Dask cluster.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pd_helpers.core.config import shown
from pd_helpers.core.machine.ranks import several
from pd_helpers.core.training import checked_seed, pick_device, progress
from pd_helpers.runs.api import prepare, run, settle
from pd_helpers.runs.calls import checked, fits
from pd_helpers.runs.files import Tensors
from pd_helpers.runs.memory import check_settings
from pd_helpers.runs.presets import Preset, preset
from pd_helpers.runs.run import Run
from pd_helpers.targets.base import TargetConfig, make_target

if TYPE_CHECKING:
    import pandas

MOST_RUNS = 100_000
"""Largest number of runs in a sweep."""
MOST_JOBS = 10_000
"""Largest number of runs at a time."""


@checked()
def end_state(run: Run) -> Tensors:
    """What a shipped sweep keeps of each run: P.<layer> (C, d_out, d_in) and the target's W.<layer> (d_out, d_in)."""
    tensors = {}
    for path, layer in run.components.layers.items():
        tensors |= {f"P.{path}": layer.P.detach().cpu(), f"W.{path}": run.components.targets[path].cpu()}
    return tensors


def points_of(grid: Mapping[str, Iterable]) -> list[dict[str, Any]]:
    """All points of a grid, the last field varying fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


@checked("grid", "n_jobs", "device", "keep", name="'apd/tms_5-2'", target="pdh.make_target(pdh.TMSConfig())")
def sweep(
    name: str | Preset,
    grid: Mapping[str, Iterable],
    *,
    n_jobs: int | None = None,
    target: nn.Module | Run | None = None,
    device: str | torch.device = "auto",
    show_progress: bool = True,
    keep: Callable[[Run], Any] | None = None,
    **overrides: Any,
) -> "pandas.DataFrame":
    """Run an experiment at every point of a grid.

    Args:
        name: a preset such as "apd/tms_5-2", or a `Preset` of your own.
        grid: field of the preset, or "seed" → its values; every combination is run, the last field varying fastest.
        n_jobs: number of runs at a time, on one torch thread each; None means 2, or what `joblib.parallel_config` says.
        target: the network that all runs decompose, or a run whose target they decompose. By default targets are
            trained, and runs whose targets have the same seed and settings share one.
        device: auto, cpu, cuda or mps.
        show_progress: whether to show a progress bar.
        keep: a function of a finished run whose result is kept, such as
            `lambda run: run.components.layers["embed"].P.detach()`.
        overrides: fields that are the same for all runs.

    Returns one row for each run, in the order of the grid, with the grid's columns; all metrics, of which `n_alive` and
    `l0` have a column for each use (`n_alive.embed`); `seconds` and `target_seconds`; `error`, which is None or says
    what went wrong in this run while the others continued; and `kept`, if `keep` is given.

    >>> table = pdh.sweep("apd/tms_5-2", {"simplicity_coeff": [0.1, 0.7], "seed": range(5)})
    >>> table.groupby("simplicity_coeff")["ml2r"].mean()

    Runs can be distributed, for instance over a Dask cluster (`"ray"` after `ray.util.joblib.register_ray()`):

    >>> with joblib.parallel_config(backend="dask"):  # a dask.distributed.Client is connected
    ...     table = pdh.sweep("apd/tms_5-2", {"seed": range(100)})

    Raises ValueError or TypeError, before any work starts, for a grid or settings that cannot work.
    """
    import pandas

    if n_jobs is not None and (not fits(n_jobs, int) or not 0 < abs(n_jobs) <= MOST_JOBS):
        limit = f"of at most {MOST_JOBS}" if fits(n_jobs, int) and n_jobs else "other than 0"
        raise ValueError(f"n_jobs must be a whole number {limit}, but is {shown(n_jobs)}; 2 works")
    if keep is not None and not callable(keep):
        raise TypeError(f"keep must be a function of a run, but is {shown(keep)}; lambda run: run.history works")
    if several():
        raise ValueError("pdh.sweep starts processes of its own, n_jobs at a time; python in place of torchrun works")
    at, axes = pick_device(device), _axes(grid, overrides)
    points = points_of(axes)
    settings = [{"seed": 0, **overrides, **point} for point in points]
    targets = [_target_of(name, target, of_run, at) for of_run in settings]

    trained: dict[tuple[TargetConfig, int], tuple[nn.Module, float]] = {}
    if target is None:
        distinct = list(dict.fromkeys(targets))
        jobs = [(config, seed, at) for config, seed in distinct]
        trained = dict(zip(distinct, _all(_train_target, jobs, n_jobs, "targets", show_progress), strict=True))
    jobs = [
        (name, of_run, *trained.get(key, (target, 0.0)), device, keep)
        for of_run, key in zip(settings, targets, strict=True)
    ]
    rows = _all(_row, jobs, n_jobs, preset(name).name, show_progress)

    table = pandas.DataFrame([{**point, **row} for point, row in zip(points, rows, strict=True)])
    last_columns = ["seconds", "target_seconds", "error"] + (["kept"] if keep else [])
    for column in last_columns[2:]:  # pandas would turn None into NaN
        table[column] = pandas.Series([row[column] for row in rows], dtype=object)
    return table[[column for column in table if column not in [*last_columns, "kept"]] + last_columns]


def flat(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics without nesting: {"l0": {"embed": 1.0}} becomes {"l0.embed": 1.0}."""
    one_level = {}
    for key, value in metrics.items():
        one_level |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
    return one_level


def restored(name: str, row: "pandas.Series") -> Run:
    """The run of one row of a sweep that kept end states (`keep=end_state`), with its components in place.

    Raises ValueError if the row belongs to another network than the one that experiment, settings and seed determine.
    """
    plain, tensors = preset(name), row["kept"]
    fields = plain.config.to_dict() | plain.target.to_dict()
    settings = row.reindex(list(fields)).dropna().to_dict()  # tables of several sweeps, put together, have gaps
    run = prepare(name, int(row["seed"]), device="cpu", show_progress=False, warm_up=False, **settings)
    for path, layer in run.components.layers.items():
        if not torch.equal(tensors[f"W.{path}"], run.components.targets[path]):
            raise ValueError(f"sweep was made on another network: its {path} differs from that of seed {row['seed']}")
        layer.assign_(tensors[f"P.{path}"])
    return run


def _axes(grid: Mapping[str, Iterable], overrides: Mapping[str, Any]) -> dict[str, list]:
    """The grid with its values as lists; raises TypeError or ValueError for a grid that cannot work."""
    example = '{"simplicity_coeff": [0.1, 0.7], "seed": range(5)}'
    if not isinstance(grid, Mapping) or not grid:
        raise ValueError(f"grid must map fields to lists of values, but is {shown(grid)}; {example} works")
    axes = {}
    for key, values in grid.items():
        if not isinstance(key, str):
            raise TypeError(f"grid must have names of fields as keys, but one is {shown(key)}; {example} works")
        if isinstance(values, str | bytes) or not isinstance(values, Iterable) or getattr(values, "ndim", 1) == 0:
            raise TypeError(f"grid[{key!r}] must be a list of values, but is {shown(values)}; [{shown(values)}] works")
        axes[key] = list(itertools.islice(values, MOST_RUNS + 1))
        axes[key] = [value.item() if _is_scalar(value) else value for value in axes[key]]
        if not axes[key]:
            raise ValueError(f"grid[{key!r}] has no values; {example} works")
        if key in overrides:
            raise ValueError(
                f"{key} is in the grid and set to {shown(overrides[key])} for all runs; leave one of them out"
            )
    if (n := math.prod(map(len, axes.values()))) > MOST_RUNS:
        raise ValueError(f"grid must be of at most {MOST_RUNS} runs, but is of {n} or more; {example} works")
    return axes


def _is_scalar(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() == 1


def _target_of(
    name: str | Preset, target: nn.Module | Run | None, settings: Mapping[str, Any], device: torch.device
) -> tuple[TargetConfig, int]:
    """The configuration and the seed of a run's target; raises ValueError or TypeError for settings that do not fit."""
    seed = checked_seed(settings["seed"])
    of_run, _ = settle(name, target, {key: value for key, value in settings.items() if key != "seed"})
    check_settings(preset(name), of_run, device)
    config = of_run.target
    return config.replace(target_seed=None), seed if config.target_seed is None else config.target_seed


def _train_target(config: TargetConfig, seed: int, device: torch.device) -> tuple[nn.Module, float]:
    began = time.perf_counter()
    target = make_target(config, seed, device, show_progress=False)
    return target, time.perf_counter() - began


def _row(
    name: str | Preset,
    settings: dict[str, Any],
    target: nn.Module | Run,
    target_seconds: float,
    device: str | torch.device,
    keep: Callable[[Run], Any] | None,
) -> dict[str, Any]:
    """The row of one run in the table, without its settings."""
    row = {"target_seconds": target_seconds, "error": None, "kept": None}
    began = time.perf_counter()
    try:
        target = copy.deepcopy(target)  # jobs may be threads of one process, which must not share a network
        finished_run = run(name, target=target, device=device, show_progress=False, **settings)
        row |= {**flat(finished_run.metrics), "seconds": finished_run.seconds}
        row["kept"] = keep(finished_run) if keep else None
    except Exception as error:  # of any kind: the other runs continue
        row |= {"seconds": time.perf_counter() - began, "error": f"{type(error).__name__}: {error}"}
    return row


def _all(work: Callable, jobs: list[tuple], n_jobs: int | None, description: str, show_progress: bool) -> list:
    """[work(*job) for job in jobs], several at a time, under a progress bar."""
    from joblib import Parallel, delayed, parallel

    _, configured = parallel.get_active_backend()
    results, threads = [None] * len(jobs), torch.get_num_threads()
    pairs = Parallel(n_jobs=n_jobs or configured or 2, return_as="generator_unordered")(
        delayed(_on_one_thread)(i, work, job) for i, job in enumerate(jobs)
    )
    try:
        for i, result in progress(pairs, total=len(jobs), description=description, show=show_progress, unit="run"):
            results[i] = result
    finally:
        torch.set_num_threads(threads)  # jobs that were threads of this process may have left the setting at one
    return results


def _on_one_thread(i: int, work: Callable, job: tuple) -> tuple[int, Any]:
    """The number and the result of a job, run on one torch thread, since jobs with all threads would be slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return i, work(*job)
    finally:
        torch.set_num_threads(before)
