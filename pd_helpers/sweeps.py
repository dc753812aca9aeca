"""Sweeps: the same experiment over a grid of settings, several runs at a time, as one tidy table.

    table = sweep("apd/tms_5-2", {"simplicity_coeff": [0.1, 0.7], "seed": range(5)})

Runs go through joblib, so they spread over whatever joblib does: processes of this machine, or a Ray or Dask cluster.
"""

import copy
import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pd_helpers.presets import preset
from pd_helpers.runs import Run, checked_seed, prepare, run, settle
from pd_helpers.targets import TargetConfig, make_target
from pd_helpers.training import pick_device, progress

if TYPE_CHECKING:
    import pandas


def sweep(
    name: str,
    grid: Mapping[str, Iterable],
    *,
    n_jobs: int | None = None,
    target: "nn.Module | Run | None" = None,
    device: str = "auto",
    show_progress: bool = True,
    keep: Callable[[Run], Any] | None = None,
    **overrides: Any,
) -> "pandas.DataFrame":
    """Run an experiment at every point of a grid.

    Args:
        name: a preset such as "apd/tms_5-2".
        grid: field of the preset, or "seed" → its values; every combination is run, the last field varying fastest.
        n_jobs: runs at a time, on one torch thread each; None means 2, or what `joblib.parallel_config` says.
        target: decompose this network, or this run's, everywhere; else runs whose target has the same seed and
            settings share it, and it is trained once.
        device: auto, cpu, cuda or mps.
        keep: what else to keep of a run, such as `lambda run: run.components.layers["embed"].P.detach()`.
        overrides: fields that are the same for all runs.

    Returns one row per run, in the grid's order: the grid's columns; every metric, `n_alive` and `l0` with a column for
    each use (`n_alive.embed`); `seconds` and `target_seconds`; `error`, None or what went wrong in this run (the
    others go on); and `kept` if `keep` is given.

    >>> table = pdh.sweep("apd/tms_5-2", {"simplicity_coeff": [0.1, 0.7], "seed": range(5)})
    >>> table.groupby("simplicity_coeff")["ml2r"].mean()

    The work can go elsewhere, for instance to a Dask cluster (`"ray"` after `ray.util.joblib.register_ray()`):

    >>> with joblib.parallel_config(backend="dask"):  # a dask.distributed.Client is connected
    ...     table = pdh.sweep("apd/tms_5-2", {"seed": range(100)})

    Raises ValueError or TypeError, before any work starts, for a grid or settings that cannot work.
    """
    import pandas

    if n_jobs is not None and (not isinstance(n_jobs, int) or isinstance(n_jobs, bool) or n_jobs == 0):
        raise ValueError(f"n_jobs must be a whole number other than 0, but is {n_jobs!r}; 2 works")
    if keep is not None and not callable(keep):
        raise TypeError(f"keep must be a function of a run, but is {keep!r}; lambda run: run.history works")
    at, axes = pick_device(device), _axes(grid, overrides)
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    settings = [{"seed": 0, **overrides, **point} for point in points]
    targets = [_target_of(name, target, one) for one in settings]

    trained: dict[tuple[TargetConfig, int], tuple[nn.Module, float]] = {}
    if target is None:
        distinct = list(dict.fromkeys(targets))
        jobs = [(config, seed, at) for config, seed in distinct]
        trained = dict(zip(distinct, _all(_train_target, jobs, n_jobs, "targets", show_progress), strict=True))
    jobs = [
        (name, one, *trained.get(key, (target, 0.0)), device, keep) for one, key in zip(settings, targets, strict=True)
    ]
    rows = _all(_row, jobs, n_jobs, name, show_progress)

    table = pandas.DataFrame([{**point, **row} for point, row in zip(points, rows, strict=True)])
    last = ["seconds", "target_seconds", "error"] + (["kept"] if keep else [])
    for column in last[2:]:  # pandas would make NaN of None
        table[column] = pandas.Series([row[column] for row in rows], dtype=object)
    return table[[column for column in table if column not in [*last, "kept"]] + last]


def flat(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as one level: {"l0": {"embed": 1.0}} becomes {"l0.embed": 1.0}."""
    one_level = {}
    for key, value in metrics.items():
        one_level |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
    return one_level


def restored(name: str, row: "pandas.Series") -> Run:
    """The run of one row of a sweep that kept its end state (`shipping.end_state`), with its components in place.

    Raises ValueError where the row is of another network than the experiment, its settings and seed give.
    """
    plain, kept = preset(name), row["kept"]
    fields = plain.config.to_dict() | plain.target.to_dict()
    settings = row.reindex(list(fields)).dropna().to_dict()  # tables of several sweeps, put together, have gaps
    unprepared = settings | {"faithfulness_warmup_steps": 0}  # of components that are about to be replaced
    run = prepare(name, int(row["seed"]), device="cpu", show_progress=False, **unprepared)
    warm_up = settings.get("faithfulness_warmup_steps", plain.config.faithfulness_warmup_steps)
    run.config = run.config.replace(faithfulness_warmup_steps=warm_up)
    for path, layer in run.components.layers.items():
        if not torch.equal(kept[f"W.{path}"], run.components.targets[path]):
            raise ValueError(f"sweep was made on another network: its {path} differs from that of seed {row['seed']}")
        layer.assign_(kept[f"P.{path}"])
    return run


def _axes(grid: Mapping[str, Iterable], overrides: Mapping[str, Any]) -> dict[str, list]:
    """The grid with its values as lists."""
    example = '{"simplicity_coeff": [0.1, 0.7], "seed": range(5)}'
    if not isinstance(grid, Mapping) or not grid:
        raise ValueError(f"grid must map fields to lists of values, but is {grid!r}; {example} works")
    axes = {}
    for key, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise TypeError(f"grid[{key!r}] must be a list of values, but is {values!r}; [{values!r}] works")
        axes[key] = [value.item() if isinstance(value, torch.Tensor) else value for value in values]
        if not axes[key]:
            raise ValueError(f"grid[{key!r}] has no values; {example} works")
        if key in overrides:
            raise ValueError(f"{key} is in the grid and set to {overrides[key]!r} for all runs; leave one of them out")
    return axes


def _target_of(name: str, target: nn.Module | Run | None, settings: Mapping[str, Any]) -> tuple[TargetConfig, int]:
    """The target of a run, by its settings and seed; complains of settings that do not fit."""
    seed = checked_seed(settings["seed"])
    config = settle(name, target, {key: value for key, value in settings.items() if key != "seed"})[0].target
    return config.replace(target_seed=None), seed if config.target_seed is None else config.target_seed


def _train_target(config: TargetConfig, seed: int, device: torch.device) -> tuple[nn.Module, float]:
    began = time.perf_counter()
    target = make_target(config, seed, device, show_progress=False)
    return target, time.perf_counter() - began


def _row(
    name: str,
    settings: dict[str, Any],
    target: nn.Module | Run,
    target_seconds: float,
    device: str,
    keep: Callable[[Run], Any] | None,
) -> dict[str, Any]:
    """Everything the table says of one run, besides its settings."""
    row = {"target_seconds": target_seconds, "error": None, "kept": None}
    began = time.perf_counter()
    try:
        target = copy.deepcopy(target)  # where jobs are threads of one process, they would run one network at a time
        done = run(name, target=target, device=device, show_progress=False, **settings)
        row |= {**flat(done.metrics), "seconds": done.seconds}
        row["kept"] = keep(done) if keep else None
    except Exception as error:  # whatever it is, the other runs go on
        row |= {"seconds": time.perf_counter() - began, "error": f"{type(error).__name__}: {error}"}
    return row


def _all(work: Callable, jobs: list[tuple], n_jobs: int | None, description: str, show_progress: bool) -> list:
    """[work(*job) for job in jobs], several at a time, under a progress bar."""
    from joblib import Parallel, delayed, parallel

    _, configured = parallel.get_active_backend()
    results, threads = [None] * len(jobs), torch.get_num_threads()
    done = Parallel(n_jobs=n_jobs or configured or 2, return_as="generator_unordered")(
        delayed(_on_one_thread)(i, work, job) for i, job in enumerate(jobs)
    )
    try:
        for i, result in progress(done, total=len(jobs), description=description, show=show_progress, unit="run"):
            results[i] = result
    finally:
        torch.set_num_threads(threads)  # where jobs ran in threads of this process, they may have left it at one
    return results


def _on_one_thread(i: int, work: Callable, job: tuple) -> tuple[int, Any]:
    """Several runs at a time on all threads each would only get into each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return i, work(*job)
    finally:
        torch.set_num_threads(before)
