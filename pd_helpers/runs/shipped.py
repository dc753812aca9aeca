"""Shipped runs: trained beforehand and part of the package, so that a notebook can begin with a result.

    run = shipped("spd/tms_40-10")                a run that takes minutes to train, read in an instant
    run = shipped("spd/tms_40-10", "seed1")       another variant of it
    table = shipped_sweep("apd/tms_5-2")          many small runs, with one row for each

They are stored in `pd_helpers/shipped/<experiment>/<variant>/`, and take less space than the original runs: factors of
full rank are cut to their numerical rank, and large runs keep at most 20 snapshots, in half precision, or none. The
errors of both approximations are recorded in run.json. `manifest.json` lists all shipped runs and sweeps, and
`tools/ship.py` trains and ships them.
"""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pd_helpers.core.config import shown
from pd_helpers.runs import files
from pd_helpers.runs.api import run
from pd_helpers.runs.calls import checked
from pd_helpers.runs.files import Facts
from pd_helpers.runs.loading import load
from pd_helpers.runs.run import Run

if TYPE_CHECKING:
    import pandas


SHIPPED = Path(__file__).parents[1] / "shipped"
DEFAULT = "seed0"
"""The variant that is read if none is named."""
SWEEP_FORMAT = "pd_helpers sweep 1"


@checked("device")
def shipped(name: str, variant: str | None = None, *, device: str | torch.device = "cpu") -> Run:
    """A run that comes with the package.

    Args:
        name: an experiment such as "spd/tms_40-10".
        variant: such as "seed1"; None means "seed0" if there is one, and the first variant otherwise.
        device: auto, cpu, cuda or mps.

    >>> pdh.shipped("spd/tms_40-10").metrics

    Raises ValueError, which lists what is shipped, if there is no such run.
    """
    return load(_find("runs", name, variant, DEFAULT), device=device)


@checked()
def shipped_sweep(name: str, variant: str | None = None) -> "pandas.DataFrame":
    """A sweep that comes with the package: the table of `sweep`.

    Its column `kept` holds for each run a dict with the components P.<layer> (C, d_out, d_in) and the target's
    W.<layer> (d_out, d_in), or with weights and M for "mlp/mixing"; some sweeps have no such column. If `variant` is
    None, the first one in the manifest is read.

    >>> table = pdh.shipped_sweep("apd/tms_5-2")
    >>> table.query("simplicity_coeff == 0.7 and schatten_p == 1.0")[["top_k", "ml2r"]]

    Raises ValueError, which lists what is shipped, if there is no such sweep.
    """
    import pandas

    tensors, facts = files.read_run(_find("sweeps", name, variant), SWEEP_FORMAT)
    table = pandas.DataFrame(facts["table"])
    table["error"] = pandas.Series(facts["table"]["error"], dtype=object)
    if not tensors:
        return table
    end_states = [
        None if error else {key: values[i] for key, values in tensors.items()} for i, error in enumerate(table["error"])
    ]
    return table.assign(kept=pandas.Series(end_states, dtype=object))


def manifest() -> dict[str, Any]:
    """The list of what is shipped: `runs`, `sweeps`, and `megabytes`, the size of them all together."""
    return json.loads((SHIPPED / "manifest.json").read_text())


def _find(kind: str, name: str, variant: str | None, default: str | None = None) -> Path:
    """The folder of a shipped run or sweep; `kind` is "runs" or "sweeps"."""
    entries = manifest()
    names = list(dict.fromkeys(entry["name"] for entry in entries[kind]))
    variants = {k: [e["variant"] for e in entries[k] if e["name"] == name] for k in ("runs", "sweeps")}
    other, reader = ("sweeps", "shipped_sweep") if kind == "runs" else ("runs", "shipped")
    elsewhere = [f"pdh.{reader}({name!r}, {one!r})" for one in variants[other]]
    if name not in names and elsewhere:
        raise ValueError(f"no {kind[:-1]} of {name!r} is shipped, but {other} are: {', '.join(elsewhere)}")
    if name not in names:
        matches = get_close_matches(name[:100], names, n=1, cutoff=0.3)
        hint = f"did you mean {matches[0]!r}? " if matches else ""
        raise ValueError(f"no {kind[:-1]} of {shown(name)} is shipped: {hint}shipped are {', '.join(names)}")
    if variant is None:
        variant = default if default in variants[kind] else variants[kind][0]
    if variant not in variants[kind]:
        verb = "is" if len(variants[kind]) == 1 else "are"
        hint = f"; {elsewhere[variants[other].index(variant)]} works" if variant in variants[other] else ""
        raise ValueError(
            f"no variant {shown(variant)} of {name!r} is shipped; {', '.join(map(repr, variants[kind]))} {verb}{hint}"
        )
    return SHIPPED / name / variant


@checked("device")
def reproduce(
    name: str, variant: str | None = None, *, device: str | torch.device = "auto", show_progress: bool = True
) -> tuple[Run, Facts]:
    """Train a shipped run again with its recorded seed and settings; returns the new run and the recorded facts.

    Raises ValueError, which lists what is shipped, if there is no such run.
    """
    facts = files.read_facts(_find("runs", name, variant, DEFAULT))
    settings = facts["config"] | facts["target_config"]
    return run(name, facts["seed"], device=device, show_progress=show_progress, **settings), facts


def difference(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """Metric → new value minus old value, for the metrics that both have."""
    return {
        key: difference(value, old[key]) if isinstance(value, Mapping) else value - old[key]
        for key, value in new.items()
        if key in old
    }
