"""Train the runs and sweeps that come with the package, and make them part of it.

    python -m tools.ship                           list what is planned, and what is shipped
    python -m tools.ship apd/tms_5-2 ...           train and ship all variants of these experiments
    python -m tools.ship spd/tms_40-10:seed1 ...   train and ship these variants only

`RUNS` and `SWEEPS` are the plan. To save space, large factors of full rank are cut to their numerical rank, and runs
with large snapshots keep at most 20 of them, in half precision, or none; run.json records the largest changes.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pd_helpers.analysis import importance_matrices, metrics
from pd_helpers.core.training import pick_device
from pd_helpers.course.adversary import ideas as adversary
from pd_helpers.course.apd_gated_functions import ideas as gated
from pd_helpers.course.apd_superposition import ideas as settings
from pd_helpers.course.attention import ideas as attention
from pd_helpers.course.compressed_computation import ideas as mixing
from pd_helpers.course.superposition import ideas as superposition
from pd_helpers.runs import files, shipped
from pd_helpers.runs.api import run
from pd_helpers.runs.circumstances import circumstances
from pd_helpers.runs.files import Facts, Tensors
from pd_helpers.runs.presets import preset
from pd_helpers.runs.run import Run
from pd_helpers.runs.sweeps import end_state, sweep
from tools.course_files import Parser

if TYPE_CHECKING:
    import pandas

TOLERANCE = 5e-4
"""Singular values below this share of a layer's largest one are cut."""
LIGHT_SNAPSHOTS = 20
"""Largest number of snapshots of a run whose snapshots would take more than `HEAVY` bytes otherwise."""
NUMBERS = re.compile(r'\[\n([^\[\]{}"]*)\]')
"""A list without strings, lists or mappings in indented JSON, where only between values there are ends of lines."""
HEAVY = 500_000
"""Number of bytes that the snapshots of a run may take, and its factors before they are cut."""


@dataclass(frozen=True)
class Plan:
    """One run to be shipped."""

    name: str
    variant: str = shipped.DEFAULT
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    snapshots: bool = True
    """Whether its snapshots are shipped; those of a run of which only metrics are shown would be dead weight."""


@dataclass(frozen=True)
class SweepPlan:
    """One sweep to be shipped: of an experiment, or the result of another function of a grid, `table`."""

    name: str
    variant: str
    grid: Mapping[str, list]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    table: "Callable[..., pandas.DataFrame] | None" = None
    """Called with the grid and, as keywords, the overrides; it runs on the CPU. None means that `name` is a preset."""
    keep: Callable[[Run], Tensors] | None = end_state
    """What is shipped of every run of a preset besides its metrics."""


AT_PAPER = ("apd/tms_5-2", "apd/tms_5-2_lp", "apd/gated")
"""Experiments that are shipped over five seeds with the paper's own settings."""

TABLE_1 = ("apd/tms_5-2", "apd/tms_40-10", *(f"spd/tms_{sizes}" for sizes in ("5-2", "40-10", "5-2_id", "40-10_id")))
"""Rows of both papers' tables whose rates of success are shipped, for one initialisation and for the best of three."""


WITHOUT_ADVERSARY = {"adversarial_coeff": 0.0, "adversary_steps": 0, "stochastic_coeff": 4.0}
"""VPD on TMS 5-2 with the weight of both reconstructions, 4 in all, on the stochastic one."""
SUCCESS = (
    ("spd/tms_5-2", "success", 100, {"faithfulness_warmup_steps": 0}),
    ("spd/tms_5-2", "success_warmup", 100, {}),
    ("spd/tms_5-2", "success_straight_through", 100, {"sigmoid": "straight_through"}),
    ("vpd/tms_5-2", "success", 100, {}),
    ("vpd/tms_5-2", "success_without_adversary", 100, WITHOUT_ADVERSARY),
    ("spd/tms_40-10", "success", 20, {}),
    ("vpd/tms_40-10", "success", 20, {}),
)
"""Experiment, variant, number of seeds, changes: one initialisation each, with what may cure failures by turns."""


@torch.no_grad()
def columns(run: Run) -> Tensors:
    """What is kept of runs that are counted: how each column of W is found, and how many components hold one column.

    `cosines` and `ratios` (d_in,) are those of `metrics.best_match`, and `own` is `metrics.own_columns`.
    """
    P, W = (matrix.detach().cpu() for matrix in run.first_layer)
    cosines, ratios = metrics.best_match(P, W)
    return {"cosines": cosines, "ratios": ratios, "own": torch.tensor(metrics.own_columns(P, W))}


def pieces(run: Run) -> Tensors:
    """What is kept of SPD on a hidden identity: the end state, and which pieces of the identity each feature needs.

    `g.identity` (n_features, C) are the importances of the identity's pieces for each feature alone at 0.75.
    """
    return end_state(run) | {"g.identity": importance_matrices.importance_matrix(run)["identity"].cpu()}


def of_circuits(run: Run) -> Tensors:
    """What is kept of runs on circuits in groups: `g` (n_circuits, C), the importances for each circuit alone."""
    return {"g": importance_matrices.importance_matrix(run)["layer"].cpu()}


def at_paper(name: str) -> dict[str, Any]:
    """The paper's value of every setting in which a preset of ours differs."""
    chosen = preset(name)
    paper = chosen.paper_settings.target.to_dict() | chosen.paper_settings.config.to_dict()
    return {field: paper[field] for field in chosen.ours}


RUNS = [
    *map(Plan, ("apd/tms_5-2", "apd/tms_5-2_id", "spd/tms_5-2", "spd/tms_5-2_id")),
    Plan("apd/tms_40-10_id", snapshots=False),
    *(Plan("apd/tms_40-10", f"seed{seed}", seed) for seed in range(3)),
    *(
        Plan(name, f"seed{seed}", seed, snapshots=False)
        for name in ("spd/tms_40-10", "spd/tms_40-10_id")
        for seed in range(3)
    ),
    *map(Plan, ("apd/resid_mlp_1", "apd/resid_mlp_1_rank4", "apd/resid_mlp_2", "apd/resid_mlp_2_rank1")),
    *map(Plan, ("spd/resid_mlp_1", "spd/resid_mlp_3")),
    *(Plan("spd/resid_mlp_2", f"seed{seed}", seed) for seed in range(3)),
    *map(Plan, ("vpd/tms_5-2", "vpd/tms_5-2_id")),
    *(Plan(name, snapshots=False) for name in ("vpd/tms_40-10", "vpd/resid_mlp_1")),
    *(
        Plan(f"{method}/induction", f"seed{seed}", seed, snapshots=False)
        for method in ("vpd", "spd")
        for seed in range(3)
    ),
    Plan("vpd/induction", "two_heads", overrides={"n_heads": 2}, snapshots=False),
    Plan(
        "vpd/induction",
        "redundant",
        overrides={"n_layers": 3, "drop": 0.4, "target_steps": 2000},
        snapshots=False,
    ),
    Plan("apd/resid_mlp_2", "rank2", overrides={"rank": 2}),
    Plan("apd/resid_mlp_2", "top_k1", overrides={"top_k": 1.0}),
    *(Plan("apd/resid_mlp_1_rank4", f"top_k{k:g}", overrides={"top_k": k}) for k in (1.0, 2.0)),
    *(
        Plan("spd/resid_mlp_1", f"beta{b:.0e}", overrides={"importance_coeff": b}, snapshots=False)
        for b in (1e-6, 3e-6, 1e-4, 1e-3)
    ),
]
SWEEPS = [  # of several of one experiment, the first is what pdh.shipped_sweep(name) reads
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
    SweepPlan("spd/tms_40-10", "importance", {"importance_coeff": [2e-5, 5e-4]}, keep=None),
    SweepPlan("spd/tms_40-10_id", "subcomponents", {"C": [100, 200, 400, 800]}, keep=None),
    SweepPlan("apd/resid_mlp_1_rank4", "top_k", {"top_k": [0.4, 4.0]}, keep=None),
    SweepPlan("apd/tms_5-2", "top_k", {"top_k": [0.04, 0.07, 0.1, 0.211, 0.4, 0.7, 1.0], "seed": [0, 1]}, keep=None),
    SweepPlan(
        "spd/tms_5-2",
        "importance",
        {"importance_coeff": [6e-4, 1e-3, 1.5e-3, 3e-3, 6e-3, 1e-2, 1.5e-2], "seed": [0, 1]},
        keep=None,
    ),
    SweepPlan("apd/gated", "coefficients", {"simplicity_coeff": [0.5, 1.5, 5.0, 15.0], "seed": list(range(4))}),
    SweepPlan("apd/gated", "seeds", {"seed": list(range(20))}),
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
    *(SweepPlan(name, "paper", {"seed": list(range(5))}, at_paper(name)) for name in AT_PAPER),
    SweepPlan(
        "apd/tms_5-2_lp",
        "long",
        {"seed": list(range(5))},
        {
            "unit_norm": False,
            "lr": 0.03,
            "batch_size": 512,
            "steps": 20_000,
            "attribution_p": 0.5,
            "minimality_coeff": 0.03,
            "simplicity_coeff": 0.3,
        },
    ),
    *(SweepPlan(name, "rates", {"n_init": [1, 3], "seed": list(range(20))}, keep=columns) for name in TABLE_1),
    SweepPlan(
        "apd/tms_40-10",
        "lp",
        {
            "attribution_p": [0.3, 0.5, 0.7, 0.9],
            "minimality_coeff": [0.01, 0.03],
            "simplicity_coeff": [0.1, 1.0, 3.0],
        },
        {"n_init": 1},
    ),
    SweepPlan(
        "apd/gated",
        "from_mechanisms",
        {"lr": [0.001, 0.003, 0.01], "seed": list(range(5))},
        table=gated.from_mechanisms,
    ),
    SweepPlan(
        "apd/tms_5-2", "lengths", {"simplicity_coeff": [0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.6, 2.0]}, keep=None
    ),
    SweepPlan(
        "apd/tms_5-2",
        "alone",
        {
            "n_init": [1],  # nothing changed
            "lr": [0.02, 0.18],
            "schedule": ["constant"],
            "steps": [500, 2000],
            "batch_size": [128, 512],
            "schatten_p": [0.9],
            "minimality_coeff": [0.5, 2.0],
            "simplicity_coeff": [0.35, 1.4],
            "top_k": [0.1055, 0.422],
        },
        table=settings.alone,
    ),
    SweepPlan("apd/tms_5-2_id", "five", {"C": [5], "top_k": [0.211, 0.7]}),
    SweepPlan("apd/tms_5-2_id", "ten", {"C": [10], "top_k": [0.211, 0.7]}),
    SweepPlan(
        "apd/tms_5-2",
        "of_spd_targets",
        {"seed": [1, 2, 3, 4]},
        {"target_steps": preset("spd/tms_5-2").target.target_steps},
        keep=None,
    ),
    SweepPlan("spd/tms_5-2_id", "pieces", {"seed": [1, 2, 3, 4]}, keep=pieces),
    SweepPlan("vpd/tms_5-2", "held_out", {"seed": list(range(20, 30))}, keep=columns),
    *(
        SweepPlan(name, variant, {"seed": list(range(n))}, {"n_init": 1, **changes}, keep=columns)
        for name, variant, n, changes in SUCCESS
    ),
    SweepPlan(
        "vpd/pingpong",
        "frequency",
        {"frequency_coeff": [0.0, 2e-3, 5e-3, 1e-2, 2e-2], "seed": [0, 1]},
        keep=of_circuits,
    ),
    SweepPlan(
        "spd/resid_mlp_1",
        "straight_through",
        {"importance_coeff": [1e-6, 3e-6, 1e-5, 1e-4, 1e-3]},
        {"sigmoid": "straight_through"},
        keep=None,
    ),
    SweepPlan(
        "vpd/tms_5-2",
        "sparsity",
        {"name": ["spd/tms_5-2", "vpd/tms_5-2"], "share": [0.3, 0.5, 1.0, 2.0, 4.0], "seed": [0, 1]},
        table=adversary.sparsity,
    ),
    SweepPlan(
        "vpd/tms_40-10",
        "sparsity",
        {"name": ["vpd/tms_40-10"], "share": [0.1, 0.3], "seed": [0]},
        table=adversary.sparsity,
    ),
    SweepPlan(
        "vpd/tms_5-2",
        "ladders",
        {
            "run": [
                *(f"{method}/tms_{sizes}" for sizes in ("5-2", "5-2_id") for method in ("apd", "spd", "vpd")),
                *(f"{method}/tms_40-10:seed0" for method in ("apd", "spd", "vpd")),
                *("spd/resid_mlp_1", "vpd/resid_mlp_1"),
            ],
            "scope": ["shared", "per input"],
        },
        table=adversary.ladders,
    ),
    SweepPlan(
        "vpd/induction",
        "ladders",
        {
            "run": [f"{method}/induction:seed{seed}" for method in ("spd", "vpd") for seed in range(3)],
            "scope": ["shared", "per input"],
        },
        table=attention.ladders,
    ),
]


def ship(run: Run, variant: str = shipped.DEFAULT, snapshots: bool = True) -> Path:
    """Make a finished run part of the package; it replaces what was shipped under its name and variant.

    `snapshots` says whether those are shipped too, as far as `thin_snapshots` leaves them. Returns the folder; raises
    ValueError for a run that is not finished.
    """
    if not run.metrics:
        raise ValueError("run is not finished; run.train() finishes it")
    tensors, facts = run.pack()
    facts["shipped"] = {"variant": variant}
    factors = sum(t.nbytes for name, t in tensors.items() if name.startswith(("U.", "V.")))
    if run.method.spans_layers and factors > HEAVY:
        tensors, facts = cut_to_rank(tensors, facts)
        for path in facts["layers"]:
            tensors |= files.factors_to_store(path, tensors[f"U.{path}"], tensors[f"V.{path}"])
    return _ship(run.name, variant, *(thin_snapshots if snapshots else without_snapshots)(tensors, facts))


def ship_sweep(table: "pandas.DataFrame", plan: SweepPlan, device: str) -> Path:
    """Make a sweep part of the package, with the tensors in its column `kept` if it has one; returns the folder."""
    end_states = table.get("kept", [])
    first = next((state for state in end_states if state is not None), {})
    tensors = {
        key: torch.stack([torch.full_like(value, torch.nan) if state is None else state[key] for state in end_states])
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
    return _ship(plan.name, plan.variant, tensors, facts, shipped.SWEEP_FORMAT)


def cut_to_rank(tensors: Tensors, facts: Facts) -> tuple[Tensors, Facts]:
    """A packed run whose U and V have the largest numerical rank of any component, without components that are zero.

    facts["shipped"] gets `components`, the indices of the remaining components, and for each layer the largest absolute
    changes of an entry, `largest_change_of_P` and `largest_change_of_sum`.
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
        root = (s * large).sqrt()[:, :rank]  # (C, R); each factor is scaled by the root of the singular value
        U, V = left[:, :, :rank] * root.unsqueeze(1), root.unsqueeze(2) * right[:, :rank]
        change = (U * used[:, None, None]) @ V - tensors[f"U.{path}"] @ tensors[f"V.{path}"]
        changes["largest_change_of_P"][path] = change.abs().max().item()
        changes["largest_change_of_sum"][path] = change.sum(dim=0).abs().max().item()
        light |= {f"U.{path}": U[used].contiguous(), f"V.{path}": V[used].contiguous()}
    notes = {**facts["shipped"], **changes, "components": used.nonzero().flatten().tolist()}
    return light, facts | {"layers": dict.fromkeys(facts["layers"], int(used.sum())), "shipped": notes}


def thin_snapshots(tensors: Tensors, facts: Facts) -> tuple[Tensors, Facts]:
    """A packed run with fewer snapshots, in half precision, if all of them would take more than `HEAVY` bytes.

    facts["shipped"] then gets `largest_change_of_snapshots`: for each layer, the largest absolute change of an entry of
    any P in the remaining snapshots.
    """
    heavy = {name: t for name, t in tensors.items() if name.startswith("snapshots.")}
    if sum(t.nbytes for t in heavy.values()) <= HEAVY:
        return tensors, facts
    steps = facts["snapshot_steps"]
    capacity = 2 * HEAVY * len(steps) // sum(t.nbytes for t in heavy.values())  # number of snapshots, half precision
    if capacity < 2:  # a single snapshot would add nothing to the run itself
        return without_snapshots(tensors, facts)
    indices = torch.linspace(0, len(steps) - 1, min(LIGHT_SNAPSHOTS, len(steps), capacity)).round().long()
    light = {name: t[indices].half() for name, t in heavy.items()}

    def change(path: str) -> float:
        U, V = (f"snapshots.{factor}.{path}" for factor in "UV")
        return (light[U].float() @ light[V].float() - heavy[U][indices] @ heavy[V][indices]).abs().max().item()

    notes = {**facts["shipped"], "largest_change_of_snapshots": {path: change(path) for path in facts["layers"]}}
    return tensors | light, facts | {"snapshot_steps": [steps[i] for i in indices.tolist()], "shipped": notes}


def without_snapshots(tensors: Tensors, facts: Facts) -> tuple[Tensors, Facts]:
    """A packed run without its snapshots."""
    return {k: t for k, t in tensors.items() if not k.startswith("snapshots.")}, facts | {"snapshot_steps": []}


def _ship(name: str, variant: str, tensors: Tensors, facts: Facts, format: str = files.FORMAT) -> Path:
    folder = shipped.SHIPPED / name / variant
    files.write_run(folder, tensors, facts, format)
    (folder / files.RUN).write_text(lists_on_one_line((folder / files.RUN).read_text()))
    (shipped.SHIPPED / "manifest.json").write_text(json.dumps(list_shipped(), indent=1) + "\n")
    return folder


def lists_on_one_line(text: str) -> str:
    """Indented JSON with each list of numbers on one line, which takes a seventh less; it says the same."""
    return NUMBERS.sub(lambda found: f"[{', '.join(found[1].replace(',', ' ').split())}]", text)


def list_shipped() -> dict[str, Any]:
    """The manifest, made from the folders of shipped runs and sweeps."""
    runs, sweeps = [], []
    for path in sorted(shipped.SHIPPED.glob(f"*/*/*/{files.RUN}")):
        facts = json.loads(path.read_text())
        entry = {
            "name": facts["experiment"],
            "variant": path.parent.name,
            "megabytes": round(sum(file.stat().st_size for file in path.parent.iterdir()) / 1e6, 3),
            **{key: facts[key] for key in ("seconds", "device", "date")},
        }
        if facts["format"] == shipped.SWEEP_FORMAT:
            rows = len(facts["table"]["error"])
            sweeps.append({**entry, "grid": facts["grid"], "config": facts["overrides"], "runs": rows})
        else:
            config = _changes_from_preset(facts)
            runs.append({**entry, "seed": facts["seed"], "config": config, "metrics": facts["metrics"]})
    order = {(plan.name, plan.variant): i for i, plan in enumerate(SWEEPS)}
    sweeps.sort(key=lambda entry: order.get((entry["name"], entry["variant"]), len(order)))
    total = round(sum(entry["megabytes"] for entry in runs + sweeps), 3)
    return {"megabytes": total, "runs": runs, "sweeps": sweeps}


def _changes_from_preset(facts: Facts) -> dict[str, Any]:
    """The settings in which a run differs from its preset."""
    plain = preset(facts["experiment"])
    defaults = plain.config.to_dict() | plain.target.to_dict()
    return {k: v for k, v in (facts["config"] | facts["target_config"]).items() if v != defaults[k]}


def main(arguments: list[str] | None = None) -> int:
    """The developer's command: list, or train and ship; returns the exit code."""
    parser = Parser(prog="python -m tools.ship", description="Train runs and ship them.")
    parser.add_argument("what", nargs="*", help="experiment or experiment:variant; without any, show what there is")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    options = parser.parse_args(arguments)
    try:
        pick_device(options.device)
        manifest = list_shipped()
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        what = error if isinstance(error, ValueError) else f"a shipped run is damaged ({type(error).__name__})"
        print(f"error: {what}", file=sys.stderr)
        return 2
    plans = {f"{plan.name}:{plan.variant}": plan for plan in [*RUNS, *SWEEPS]}
    if not options.what:
        entries = {f"{entry['name']}:{entry['variant']}": entry for entry in manifest["runs"] + manifest["sweeps"]}
        for key in dict.fromkeys([*plans, *entries]):
            entry = entries.get(key)
            state = (
                f"{entry['megabytes']:.3f} MB, {entry['seconds']:.0f} s, {entry['date']}" if entry else "not shipped"
            )
            print(f"{key:32} {state}{'' if key in plans else ', not planned'}")
        print(f"{manifest['megabytes']} MB in all")
        return 0
    selection = {}
    for name in options.what:
        matches = {key: plan for key, plan in plans.items() if name in (key, plan.name)}
        if not matches:
            print(f"error: {name!r} is not planned; {', '.join(plans)} are", file=sys.stderr)
            return 2
        selection |= matches
    for key, plan in selection.items():
        began = time.perf_counter()
        if isinstance(plan, SweepPlan):
            device = "cpu" if plan.table else options.device
            make = plan.table or partial(sweep, plan.name, device=device, keep=plan.keep)
            folder = ship_sweep(make(plan.grid, **plan.overrides), plan, pick_device(device).type)
        else:
            trained = run(plan.name, plan.seed, device=options.device, **plan.overrides)
            folder = ship(trained, plan.variant, plan.snapshots)
        print(f"{key} in {time.perf_counter() - began:.0f} s: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
