"""Shipped runs: trained beforehand and part of the package, so that a notebook opens with a result.

    run = shipped("spd/tms_40-10")                a run that takes minutes, read in an instant
    run = shipped("spd/tms_40-10", "seed1")       a variant
    table = shipped_sweep("apd/tms_5-2")          many small runs, one row each

They lie in `pd_helpers/shipped/<experiment>/<variant>/`, lighter than when they were trained: factors of full rank are
cut to their numerical rank, and of large runs up to 20 snapshots stay, in half precision, or none; run.json states the
error of both.
`manifest.json` lists them all. To train and ship what `RUNS` and `SWEEPS` below say:

    python -m pd_helpers.shipping                           what is to be shipped, and what is
    python -m pd_helpers.shipping apd/tms_5-2 ...           train and ship these experiments, all variants
    python -m pd_helpers.shipping spd/tms_40-10:seed1 ...   or some variants only
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pd_helpers import mixing, storage, superposition
from pd_helpers.presets import preset
from pd_helpers.runs import Run, circumstances, load, run
from pd_helpers.storage import Facts, Tensors
from pd_helpers.sweeps import sweep
from pd_helpers.training import pick_device

if TYPE_CHECKING:
    import pandas

SHIPPED = Path(__file__).parent / "shipped"
DEFAULT = "seed0"
"""The variant that is meant if none is named."""
SWEEP_FORMAT = "pd_helpers sweep 1"
TOLERANCE = 5e-4
"""Singular values below this share of a layer's largest one are cut."""
LIGHT_SNAPSHOTS = 20
"""Snapshots that stay at most where all of them would take more than `HEAVY` bytes."""
HEAVY = 500_000
"""Bytes that snapshots may take."""


@dataclass(frozen=True)
class Plan:
    """One run to be shipped."""

    name: str
    variant: str = DEFAULT
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepPlan:
    """One sweep to be shipped: of an experiment, or of what else `table` makes of a grid."""

    name: str
    variant: str
    grid: Mapping[str, list]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    table: "Callable[..., pandas.DataFrame] | None" = None
    """Called with the grid and, by name, the overrides; the CPU is where it runs."""
    keep: bool = True
    """Of an experiment: whether end states are shipped, P of every layer and the target's W, or metrics alone."""


RUNS = [
    *map(Plan, ("apd/tms_5-2", "apd/tms_5-2_id", "spd/tms_5-2", "spd/tms_5-2_id")),
    *(
        Plan(name, f"seed{seed}", seed)
        for name in ("apd/tms_40-10", "spd/tms_40-10", "spd/tms_40-10_id")
        for seed in range(3)
    ),
    *map(Plan, ("apd/resid_mlp_1", "apd/resid_mlp_1_rank4", "apd/resid_mlp_2", "apd/resid_mlp_2_rank1")),
    *map(Plan, ("spd/resid_mlp_1", "spd/resid_mlp_3")),
    *(Plan("spd/resid_mlp_2", f"seed{seed}", seed) for seed in range(3)),
    Plan("apd/resid_mlp_2", "rank2", overrides={"rank": 2}),
    Plan("apd/resid_mlp_2", "top_k1", overrides={"top_k": 1.0}),
    *(Plan("apd/resid_mlp_1_rank4", f"top_k{k:g}", overrides={"top_k": k}) for k in (1.0, 2.0)),
    *(Plan("spd/resid_mlp_1", f"beta{b:.0e}", overrides={"importance_coeff": b}) for b in (1e-6, 3e-6, 1e-4, 1e-3)),
]
SWEEPS = [
    SweepPlan(
        "apd/tms_5-2",
        "shrinkage",
        {
            "simplicity_coeff": [0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.4, 2.0],
            "schatten_p": [0.6, 0.8, 1.0, 1.3],
            "top_k": [0.161, 0.211, 0.261, 0.361],
        },
    ),
    SweepPlan(
        "apd/tms_5-2_lp",
        "coefficients",
        {
            "attribution_p": [0.5, 0.7, 0.9, 1.0],
            "minimality_coeff": [0.0, 0.03, 0.1, 0.3, 1.0],
            "simplicity_coeff": [0.1, 0.3, 1.0],
        },
        overrides={"unit_norm": False, "lr": 0.03, "batch_size": 512},
    ),
    SweepPlan("apd/tms_40-10", "simplicity", {"simplicity_coeff": [0.0, 5.0, 10.0, 20.0, 40.0]}),
    SweepPlan("apd/tms_40-10", "top_k", {"top_k": [0.3, 0.6, 1.0, 1.7, 3.0]}),
    SweepPlan("spd/tms_40-10", "importance", {"importance_coeff": [2e-5, 5e-4]}, keep=False),
    SweepPlan("spd/tms_40-10_id", "subcomponents", {"C": [100, 200, 400, 800]}, keep=False),
    SweepPlan("apd/resid_mlp_1_rank4", "top_k", {"top_k": [0.4, 4.0]}, keep=False),
    SweepPlan("apd/tms_5-2", "top_k", {"top_k": [0.04, 0.07, 0.1, 0.211, 0.4, 0.7, 1.0], "seed": [0, 1]}, keep=False),
    SweepPlan(
        "spd/tms_5-2",
        "importance",
        {"importance_coeff": [6e-4, 1e-3, 1.5e-3, 3e-3, 6e-3, 1e-2, 1.5e-2], "seed": [0, 1]},
        keep=False,
    ),
    SweepPlan("apd/gated", "seeds", {"seed": list(range(20))}),
    SweepPlan("apd/gated", "coefficients", {"simplicity_coeff": [0.5, 1.5, 5.0, 15.0], "seed": list(range(4))}),
    SweepPlan(
        "tms/sparsity",
        "phases",
        {"n_features": list(range(2, 9)), "feature_probability": [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0]},
        {"target_steps": 5000},
        superposition.sweep,
    ),
    SweepPlan("mlp/mixing", "models", {"kind": list(mixing.SIGMAS)}, {"keep": True}, mixing.sweep),
    SweepPlan(
        "mlp/mixing",
        "sigma",
        {"kind": list(mixing.SIGMAS)[1:], "sigma": [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08]},
        table=mixing.sweep,
    ),
    SweepPlan(
        "mlp/mixing",
        "probability",
        {"kind": list(mixing.SIGMAS), "p": [0.001, 0.01, 0.03, 0.1, 0.3, 1.0]},
        table=mixing.sweep,
    ),
]


def shipped(name: str, variant: str | None = None, *, device: str = "cpu") -> Run:
    """A run that comes with the package.

    Args:
        name: an experiment such as "spd/tms_40-10".
        variant: such as "seed1"; None means seed 0.
        device: auto, cpu, cuda or mps.

    >>> pdh.shipped("spd/tms_40-10").metrics

    Raises ValueError for what is not shipped, saying what is.
    """
    return load(_find("runs", name, variant, DEFAULT), device=device)


def shipped_sweep(name: str, variant: str | None = None) -> "pandas.DataFrame":
    """A sweep that comes with the package: the table of `sweep`.

    Its column `kept` has, for each run, the components P.<layer> (C, d_out, d_in) and the target's W.<layer>
    (d_out, d_in), or weights and M for "mlp/mixing", see `mixing.sweep`; some sweeps come without. `variant` None means
    the only one, or the first.

    >>> table = pdh.shipped_sweep("apd/tms_5-2")
    >>> table.query("simplicity_coeff == 0.7 and schatten_p == 1.0")[["top_k", "ml2r"]]

    Raises ValueError for what is not shipped, saying what is.
    """
    import pandas

    tensors, facts = storage.read_run(_find("sweeps", name, variant), SWEEP_FORMAT)
    table = pandas.DataFrame(facts["table"])
    table["error"] = pandas.Series(facts["table"]["error"], dtype=object)
    if not tensors:
        return table
    kept = [
        None if error else {key: values[i] for key, values in tensors.items()} for i, error in enumerate(table["error"])
    ]
    return table.assign(kept=pandas.Series(kept, dtype=object))


def manifest() -> dict[str, Any]:
    """What is shipped: `runs` and `sweeps`, and `megabytes` of all together."""
    return json.loads((SHIPPED / "manifest.json").read_text())


def _find(kind: str, name: str, variant: str | None, default: str | None = None) -> Path:
    """The folder of what is shipped under that name."""
    there = manifest()[kind]
    names = list(dict.fromkeys(entry["name"] for entry in there))
    if name not in names:
        near = get_close_matches(str(name), names, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no {kind[:-1]} of {name!r} is shipped: {hint}shipped are {', '.join(names)}")
    variants = [entry["variant"] for entry in there if entry["name"] == name]
    if variant is None:
        variant = default if default in variants else variants[0]
    if variant not in variants:
        raise ValueError(
            f"no variant {variant!r} of {name!r} is shipped; {', '.join(map(repr, variants))} "
            f"{'is' if len(variants) == 1 else 'are'}"
        )
    return SHIPPED / name / variant


def ship(run: Run, variant: str = DEFAULT) -> Path:
    """Make a finished run part of the package, in place of what was shipped under its name and variant."""
    if not run.metrics:
        raise ValueError("run is not finished; run.train() finishes it")
    tensors, facts = run.pack()
    facts["shipped"] = {"variant": variant}
    if run.importance is None:
        tensors, facts = cut_to_rank(tensors, facts)
        for path in facts["layers"]:
            tensors |= storage.factors_to_store(path, tensors[f"U.{path}"], tensors[f"V.{path}"])
    return _ship(run.name, variant, *thin_snapshots(tensors, facts))


def ship_sweep(table: "pandas.DataFrame", plan: SweepPlan, device: str) -> Path:
    """Make a sweep part of the package, with the tensors in its column `kept` if it has one."""
    kept = table.get("kept", [])
    first = next((one for one in kept if one is not None), {})
    tensors = {
        key: torch.stack([torch.full_like(value, torch.nan) if one is None else one[key] for one in kept])
        for key, value in first.items()
    }
    facts = {
        "experiment": plan.name,
        "shipped": {"variant": plan.variant},
        "grid": dict(plan.grid),
        "overrides": dict(plan.overrides),
        "seconds": float(table["seconds"].sum()),
        "table": table.drop(columns="kept", errors="ignore").to_dict("list"),
        **circumstances(device),
    }
    return _ship(plan.name, plan.variant, tensors, facts, SWEEP_FORMAT)


def end_state(run: Run) -> Tensors:
    """What a shipped sweep keeps of each run."""
    kept = {}
    for path, layer in run.components.layers.items():
        kept |= {f"P.{path}": layer.P.detach().cpu(), f"W.{path}": run.components.targets[path].cpu()}
    return kept


def cut_to_rank(tensors: Tensors, facts: Facts) -> tuple[Tensors, Facts]:
    """A packed run with U and V of their numerical rank, the same for all components, and without those that are zero.

    facts["shipped"] gets `components`, the indices of those that stay, and by layer `largest_change_of_P` and
    `largest_change_of_sum`, in absolute value.
    """
    spectra = {}
    for path in facts["layers"]:
        left, s, right = torch.linalg.svd(tensors[f"U.{path}"] @ tensors[f"V.{path}"], full_matrices=False)
        spectra[path] = left, s, right, s > TOLERANCE * s.max()  # s (C, min(d_out, d_in)), descending
    used = torch.stack([large.any(dim=1) for *_, large in spectra.values()]).any(dim=0)  # (C,)
    rank = max(int(large.sum(dim=1).max()) for *_, large in spectra.values())
    changes: dict[str, dict[str, float]] = {"largest_change_of_P": {}, "largest_change_of_sum": {}}
    light = dict(tensors)
    for path, (left, s, right, large) in spectra.items():
        root = (s * large).sqrt()[:, :rank]  # (C, R); each factor gets half
        U, V = left[:, :, :rank] * root.unsqueeze(1), root.unsqueeze(2) * right[:, :rank]
        change = (U * used[:, None, None]) @ V - tensors[f"U.{path}"] @ tensors[f"V.{path}"]
        changes["largest_change_of_P"][path] = change.abs().max().item()
        changes["largest_change_of_sum"][path] = change.sum(dim=0).abs().max().item()
        light |= {f"U.{path}": U[used].contiguous(), f"V.{path}": V[used].contiguous()}
    noted = {**facts["shipped"], **changes, "components": used.nonzero().flatten().tolist()}
    return light, facts | {"layers": dict.fromkeys(facts["layers"], int(used.sum())), "shipped": noted}


def thin_snapshots(tensors: Tensors, facts: Facts) -> tuple[Tensors, Facts]:
    """A packed run with fewer snapshots, in half precision, if they are heavy.

    facts["shipped"] then gets `largest_change_of_snapshots`: of any P in those that stay, in absolute value, by layer.
    """
    heavy = {name: t for name, t in tensors.items() if name.startswith("snapshots.")}
    if sum(t.nbytes for t in heavy.values()) <= HEAVY:
        return tensors, facts
    steps = facts["snapshot_steps"]
    room = 2 * HEAVY * len(steps) // sum(t.nbytes for t in heavy.values())  # in half precision
    if room < 2:  # first and last say nothing that the run itself does not
        return {k: t for k, t in tensors.items() if k not in heavy}, facts | {"snapshot_steps": []}
    stay = torch.linspace(0, len(steps) - 1, min(LIGHT_SNAPSHOTS, len(steps), room)).round().long()
    light = {name: t[stay].half() for name, t in heavy.items()}

    def change(path: str) -> float:
        U, V = (f"snapshots.{factor}.{path}" for factor in "UV")
        return (light[U].float() @ light[V].float() - heavy[U][stay] @ heavy[V][stay]).abs().max().item()

    noted = {**facts["shipped"], "largest_change_of_snapshots": {path: change(path) for path in facts["layers"]}}
    return tensors | light, facts | {"snapshot_steps": [steps[i] for i in stay.tolist()], "shipped": noted}


def _ship(name: str, variant: str, tensors: Tensors, facts: Facts, format: str = storage.FORMAT) -> Path:
    folder = SHIPPED / name / variant
    storage.write_run(folder, tensors, facts, format)
    (SHIPPED / "manifest.json").write_text(json.dumps(list_shipped(), indent=1) + "\n")
    return folder


def list_shipped() -> dict[str, Any]:
    """The manifest, from what lies there."""
    runs, sweeps = [], []
    for path in sorted(SHIPPED.glob(f"*/*/*/{storage.RUN}")):
        facts = json.loads(path.read_text())
        entry = {
            "name": facts["experiment"],
            "variant": path.parent.name,
            "megabytes": round(sum(file.stat().st_size for file in path.parent.iterdir()) / 1e6, 3),
            **{key: facts[key] for key in ("seconds", "device", "date")},
        }
        if facts["format"] == SWEEP_FORMAT:
            rows = len(facts["table"]["error"])
            sweeps.append({**entry, "grid": facts["grid"], "config": facts["overrides"], "runs": rows})
        else:
            config = _changes_from_preset(facts)
            runs.append({**entry, "seed": facts["seed"], "config": config, "metrics": facts["metrics"]})
    total = round(sum(entry["megabytes"] for entry in runs + sweeps), 3)
    return {"megabytes": total, "runs": runs, "sweeps": sweeps}


def _changes_from_preset(facts: Facts) -> dict[str, Any]:
    """The settings in which a run differs from its preset."""
    plain = preset(facts["experiment"])
    usual = plain.config.to_dict() | plain.target.to_dict()
    return {k: v for k, v in (facts["config"] | facts["target_config"]).items() if v != usual[k]}


def reproduce(
    name: str, variant: str | None = None, *, device: str = "auto", show_progress: bool = True
) -> tuple[Run, Facts]:
    """Train a shipped run again, from its recorded seed and settings; gives the new run and the recorded facts.

    Raises ValueError for what is not shipped, saying what is.
    """
    facts = storage.read_facts(_find("runs", name, variant, DEFAULT))
    settings = facts["config"] | facts["target_config"]
    return run(name, facts["seed"], device=device, show_progress=show_progress, **settings), facts


def difference(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """Metric → new less old, for metrics that both have."""
    return {
        key: difference(value, old[key]) if isinstance(value, Mapping) else value - old[key]
        for key, value in new.items()
        if key in old
    }


def main(arguments: list[str] | None = None) -> int:
    """The developer's command: train and ship."""
    parser = argparse.ArgumentParser(prog="python -m pd_helpers.shipping", description="Train runs and ship them.")
    parser.add_argument("what", nargs="*", help="experiment or experiment:variant; without any, show what there is")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    options = parser.parse_args(arguments)
    plans = {f"{plan.name}:{plan.variant}": plan for plan in [*RUNS, *SWEEPS]}
    there = list_shipped()
    if not options.what:
        entries = {f"{entry['name']}:{entry['variant']}": entry for entry in there["runs"] + there["sweeps"]}
        for key in dict.fromkeys([*plans, *entries]):
            entry = entries.get(key)
            state = (
                f"{entry['megabytes']:.3f} MB, {entry['seconds']:.0f} s, {entry['date']}" if entry else "not shipped"
            )
            print(f"{key:32} {state}{'' if key in plans else ', not planned'}")
        print(f"{there['megabytes']} MB in all")
        return 0
    wanted = {}
    for what in options.what:
        found = {key: plan for key, plan in plans.items() if what in (key, plan.name)}
        if not found:
            print(f"error: {what!r} is not planned; {', '.join(plans)} are", file=sys.stderr)
            return 2
        wanted |= found
    for key, plan in wanted.items():
        began = time.perf_counter()
        if isinstance(plan, SweepPlan):
            device = "cpu" if plan.table else options.device
            make = plan.table or partial(sweep, plan.name, device=device, keep=end_state if plan.keep else None)
            folder = ship_sweep(make(plan.grid, **plan.overrides), plan, pick_device(device).type)
        else:
            folder = ship(run(plan.name, plan.seed, device=options.device, **plan.overrides), plan.variant)
        print(f"{key} in {time.perf_counter() - began:.0f} s: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
