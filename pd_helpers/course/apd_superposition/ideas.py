"""Which settings of APD matter on five features in two dimensions (notebook 07)? Each is changed alone."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn

from pd_helpers.analysis import metrics
from pd_helpers.runs.presets import preset
from pd_helpers.runs.run import Run
from pd_helpers.runs.sweeps import sweep
from pd_helpers.targets.base import make_target

if TYPE_CHECKING:
    import pandas

EXPERIMENT = "apd/tms_5-2"


def own_columns(run: Run) -> int:
    """How many columns of W have a component of their own."""
    P, W = run.first_layer
    return metrics.own_columns(P.detach().cpu(), W.cpu())


def alone(
    changes: Mapping[str, Sequence],
    *,
    target: nn.Module | None = None,
    seeds: Sequence[int] = (1, 2),
    steps: int = 1000,
    n_jobs: int | None = None,
    show_progress: bool = True,
) -> "pandas.DataFrame":
    """Change one setting at a time, and decompose a network from single starts: by default that of seed 0.

    `changes` maps settings of "apd/tms_5-2" to the values that are tried, and `steps` counts where it is not one of
    them. Returns a row for each setting, value and seed, with columns `setting`, `value`, `seed`, `mmcs`, `ml2r`,
    `own`, the number of columns of W with a component of their own, `seconds` and `error`.

    >>> alone({"lr": [0.02, 0.18], "schedule": ["constant"]})
    """
    import pandas

    target = target or make_target(preset(EXPERIMENT).target, seed=0, show_progress=show_progress)
    options = {"target": target, "device": "cpu", "keep": own_columns, "n_jobs": n_jobs, "show_progress": show_progress}
    tables = []
    for setting, values in changes.items():
        grid = {"steps": [steps], "n_init": [1], setting: list(values), "seed": list(seeds)}
        table = sweep(EXPERIMENT, grid, **options).rename(columns={"kept": "own"})
        table = table.assign(setting=setting, value=table[setting].astype(object))
        tables.append(table[["setting", "value", "seed", "mmcs", "ml2r", "own", "seconds", "error"]])
    return pandas.concat(tables, ignore_index=True)
