"""A `Run`: a decomposition with everything needed to understand, repeat, store and continue it.

run("apd/tms_5-2", seed=0)                    train a preset's target and decompose it
fit(network, SPDConfig(...), data, layers)    decompose a network of your own
run.save("folder"); load("folder")            safetensors for tensors, JSON for the rest; no pickles
"""

import hashlib
import itertools
import json
import math
import operator
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from pd_helpers import apd, metrics, spd
from pd_helpers.causal_importance import CausalImportance, hard_sigmoid, sample_masks
from pd_helpers.components import ComponentModel, decompose
from pd_helpers.data import one_hot
from pd_helpers.losses import faithfulness, reconstruction
from pd_helpers.presets import preset
from pd_helpers.targets import TMS, TMSConfig, train_tms
from pd_helpers.training import State, generator, pick_device, progress, threads_for

if TYPE_CHECKING:
    import pandas

FORMAT = "pd_helpers run 1"
N_RECORDS = 80
"""History rows and snapshots of a run; closer together early, where more happens."""
N_EVALUATION = 4096
"""Inputs on which a finished run is measured: one batch of SPD's size."""

Data = Callable[[int, Generator], Tensor]
"""(batch_size, generator) → batch (batch, d_in)."""


class Snapshot(NamedTuple):
    """The components after some step."""

    step: int
    factors: dict[str, tuple[Tensor, Tensor]]
    """Layer → U (C, d_out, R), V (C, R, d_in), on the CPU."""

    def P(self, layer: str) -> Float[Tensor, "C d_out d_in"]:
        """The components of a layer as matrices."""
        U, V = self.factors[layer]
        return U @ V


@dataclass
class Run:
    """One decomposition, being trained or finished."""

    name: str | None
    """The preset it came from."""
    seed: int
    config: apd.APDConfig | spd.SPDConfig
    target_config: TMSConfig | None
    """How the target was made; None for a network of your own."""
    components: ComponentModel
    """U and V of every decomposed layer, and the target."""
    importance: CausalImportance | None
    """SPD's causal importance functions; None for APD."""
    data: Data | None
    state: State | None
    """Where training stands; None for a loaded run."""
    alternatives: list["Run"] = field(default_factory=list)
    """The same run from other initialisations, until one is chosen."""
    records: list[dict[str, float | int]] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    """U and V at recorded steps, from the initial ones to the last."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """What `evaluate` measured when training ended."""
    seconds: float = 0.0
    """Time the decomposition took to train."""
    target_seconds: float = 0.0
    """Time the target took to train."""

    @property
    def target(self) -> nn.Module:
        """The network that is decomposed."""
        return self.components.target

    @property
    def history(self) -> "pandas.DataFrame":
        """One row per recorded step: unweighted losses of the latest batch, and MMCS and ML2R of the first layer."""
        import pandas

        return pandas.DataFrame(self.records)

    @property
    def device(self) -> str:
        """Type of the device it ran on."""
        return self.components.factors[0].device.type

    def steps(self) -> Iterator[int]:
        """Train, one step for each item taken, recording along the way; gives the steps done.

        Where several initialisations are to be tried, that comes first, and the winner's steps count.
        """
        if self.alternatives:
            candidates, self.alternatives = [self, *self.alternatives], []
            promises = []
            for candidate in candidates:
                losses = []
                try:
                    for loss in itertools.islice(candidate._steps(), self.config.start_steps):
                        losses.append(loss.promise(self.config))
                        yield candidate.state.step
                    promise = torch.stack(losses[-len(losses) // 4 :]).mean().item()
                except FloatingPointError:
                    promise = math.nan
                promises.append(promise if math.isfinite(promise) else math.inf)
            best = candidates[promises.index(min(promises))]
            seconds = sum(candidate.seconds for candidate in candidates)
            vars(self).update(vars(best), seconds=seconds, target_seconds=self.target_seconds)
            self.state.check()
        for _ in self._steps():
            yield self.state.step

    def _steps(self) -> Iterator[apd.Losses | spd.Losses]:
        if self.state is None:
            raise ValueError("a loaded run cannot be trained further; pdh.run or pdh.fit trains a new one")
        points = {round(self.config.steps * (i / (N_RECORDS - 1)) ** 2) for i in range(N_RECORDS)}
        if not self.snapshots:
            self._take_snapshot()
        method = (
            spd.train(self.components, self.importance, self.data, self.config, self.state)
            if self.importance
            else apd.train(self.components, self.data, self.config, self.state)
        )
        began = time.perf_counter() - self.seconds
        work = self.config.batch_size * max(layer.C * layer.rank for layer in self.components.layers.values())
        while True:
            with threads_for(work):  # entered anew for every step: between two steps, the caller's setting holds
                losses = next(method, None)
            if losses is None:
                break
            if self.state.step in points:
                self.state.check()
                P, W = self.first_layer
                values = {name: value.item() for name, value in losses._asdict().items()}
                self.records.append(
                    {
                        "step": self.state.step,
                        **values,
                        "mmcs": metrics.mmcs(P, W),
                        "ml2r": metrics.ml2r(P, W),
                    }
                )
                self._take_snapshot()
            self.seconds = time.perf_counter() - began
            yield losses

    def train(self, *, show_progress: bool = True) -> "Run":
        """Train to the end and measure."""
        total = self.config.steps + len(self.alternatives) * self.config.start_steps
        for _ in progress(self.steps(), total=total, description=self.name or "run", show=show_progress):
            pass
        self.metrics = evaluate(self)
        return self

    @property
    def first_layer(self) -> tuple[Float[Tensor, "C d_out d_in"], Float[Tensor, "d_out d_in"]]:
        """Components and target weight of the first decomposed layer: the W of the papers' tables."""
        path = next(iter(self.components.layers))
        return self.components.layers[path].P.detach(), self.components.targets[path]

    def _take_snapshot(self) -> None:
        def copy(factor: Tensor) -> Tensor:
            return factor.detach().to("cpu", copy=True)

        factors = {path: (copy(layer.U), copy(layer.V)) for path, layer in self.components.layers.items()}
        self.snapshots.append(Snapshot(self.state.step, factors))

    @torch.no_grad()
    def importances(
        self, x: Float[Tensor, "rows d_in"], n_inputs: int | None = None
    ) -> dict[str, Float[Tensor, "rows _"]]:
        """Use → g (rows, C) in [0, 1]: SPD's causal importances, or 1 for APD's active components and 0 for others.

        APD's active components are the batch top-k over the rows given, which stand for `n_inputs` inputs if some
        all-zero ones were merged.
        """
        model = self.components
        if self.importance is not None:
            gates = self.importance(model, model.target_forward(x).inputs)
            return {path: hard_sigmoid(gate) for path, gate in gates.items()}
        n_active = round(self.config.top_k * (n_inputs or len(x)))
        active = apd.active_components(model, x, self.config, n_active).to(x.dtype)
        return dict.fromkeys(model.uses, active)

    def save(self, folder: str | os.PathLike) -> Path:
        """Write the run to a new folder: `run.json` and `tensors.safetensors`.

        `run.json` comes last and holds the other file's checksum, so that half a run never loads. Raises ValueError if
        the folder exists and is not empty, or cannot be made.
        """
        folder = check_new_folder(folder)
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder, prefix=".partial-"))
        try:
            save_file(self._tensors(), partial / "tensors.safetensors")
            (partial / "run.json").write_text(json.dumps(self._facts(partial), indent=1) + "\n")
            for name in ("tensors.safetensors", "run.json"):
                os.replace(partial / name, folder / name)
        finally:
            shutil.rmtree(partial)
            if made and not any(folder.iterdir()):
                folder.rmdir()
        return folder

    def _tensors(self) -> dict[str, Tensor]:
        tensors = _named_tensors(self.target)
        for path, layer in self.components.layers.items():
            tensors |= {f"U.{path}": layer.U, f"V.{path}": layer.V}
            for i, factor in enumerate("UV"):
                tensors[f"snapshots.{factor}.{path}"] = torch.stack([s.factors[path][i] for s in self.snapshots])
        for path, mlp in self.importance.mlps.items() if self.importance else ():
            tensors |= {f"importance.{path}.{name}": p for name, p in mlp.named_parameters()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def _facts(self, folder: Path) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "experiment": self.name,
            "method": "spd" if self.importance else "apd",
            "seed": self.seed,
            "device": self.device,
            "config": self.config.to_dict(),
            "target_config": self.target_config.to_dict() if self.target_config else None,
            "layers": {path: layer.C for path, layer in self.components.layers.items()},
            "metrics": self.metrics,
            "seconds": self.seconds,
            "target_seconds": self.target_seconds,
            "snapshot_steps": [s.step for s in self.snapshots],
            "history": {k: [r[k] for r in self.records] for k in (self.records[0] if self.records else ())},
            "versions": {"torch": torch.__version__},
            "sha256": _sha256(folder / "tensors.safetensors"),
        }


def start(
    target: nn.Module,
    config: apd.APDConfig | spd.SPDConfig,
    data: Data,
    layers: Mapping[str, int] | list[str],
    *,
    seed: int = 0,
    device: str = "auto",
    name: str | None = None,
    target_config: TMSConfig | None = None,
) -> Run:
    """A run at step 0: components and importances drawn, nothing trained. `fit` says what the arguments are."""
    at, seed = pick_device(device), _checked_seed(seed)
    if not isinstance(config, apd.APDConfig | spd.SPDConfig):
        raise TypeError(f"config must be an APDConfig or an SPDConfig, but is a {type(config).__name__}")
    if isinstance(layers, str):
        raise TypeError(f"layers must be a list of paths, but is the text {layers!r}; [{layers!r}] works")
    C = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, config.C)
    if isinstance(config, apd.APDConfig) and len(set(C.values())) > 1:
        raise ValueError(f"layers gives {C}, but a component of APD spans all layers; the same C for each works")
    _check_data(target.to(at), data, generator(seed, "data", at))
    init = generator(seed, "init")

    def initialise() -> Run:
        began = time.perf_counter()
        draw = generator(seed, "data", at)
        components = decompose(target, C, rank=config.rank, generator=init).to(at)
        if isinstance(config, spd.SPDConfig):
            importance = CausalImportance(components, d_gate=config.d_gate, generator=init)
            state = spd.start(components, importance, config, draw)
        else:
            importance, state = None, apd.start(components, config, draw)
        run = Run(name, seed, config, target_config, components, importance, data, state)
        run.seconds = time.perf_counter() - began  # the faithfulness warm-up
        return run

    run = initialise()
    run.components.target_forward(data(2, generator(seed, "data", at)))  # complains of layers that are not called
    run.alternatives = [initialise() for _ in range(1, config.starts)]
    return run


def fit(
    target: nn.Module,
    config: apd.APDConfig | spd.SPDConfig,
    data: Data,
    layers: Mapping[str, int] | list[str],
    *,
    seed: int = 0,
    device: str = "auto",
    show_progress: bool = True,
) -> Run:
    """Decompose a network of your own.

    Args:
        target: any trained network; its parameters are frozen, and it moves to the device.
        config: `APDConfig` or `SPDConfig`; says which method.
        data: called as data(batch_size, generator), gives a batch (batch, d_in) on the generator's device.
        layers: paths of `nn.Linear` layers, each with `config.C` components; or path → number of components.
        seed: seed of initial factors, data and masks.
        device: auto, cpu, cuda or mps.

    >>> run = pdh.fit(network, pdh.SPDConfig(C=30, steps=5000), data, ["fc1", "fc2"])

    Raises ValueError or TypeError, before any work starts, for arguments that cannot work; FloatingPointError if
    the loss becomes non-finite.
    """
    return start(target, config, data, layers, seed=seed, device=device).train(show_progress=show_progress)


def prepare(
    name: str,
    seed: int = 0,
    *,
    target: "nn.Module | Run | None" = None,
    device: str = "auto",
    show_progress: bool = True,
    **overrides: Any,
) -> Run:
    """`run` up to step 0: the preset's target is trained (or given), its decomposition only started."""
    at, seed, experiment = pick_device(device), _checked_seed(seed), preset(name)
    if isinstance(target, Run):
        made = target.target_config
        if made is not None:
            origin = target.seed if made.target_seed is None else made.target_seed
            overrides = {**made.to_dict(), "target_seed": origin, **overrides}
        target = target.target
    if target is not None:
        if not isinstance(target, TMS):
            raise TypeError(
                f"target must be a TMS or a Run with one, but is a {type(target).__name__}; fit() takes any"
            )
        shape = {"n_features": target.embed.in_features, "n_hidden": target.embed.out_features}
        shape["identity"] = target.identity is not None
        for key, size in shape.items():
            if overrides.setdefault(key, size) != size:
                raise ValueError(f"{key} is {overrides[key]}, but the target given has {size}; leave {key} out")
    experiment = experiment.replace(**overrides)
    config = experiment.target
    began = time.perf_counter()
    if target is None:
        target_seed = seed if config.target_seed is None else config.target_seed
        target = train_tms(config, target_seed, at, show_progress=show_progress)
        target_seconds = time.perf_counter() - began
    else:
        target_seconds = 0.0
    run = start(
        target,
        experiment.config,
        config.features(),
        target.layers,
        seed=seed,
        device=device,
        name=name,
        target_config=config,
    )
    run.target_seconds = target_seconds
    return run


def run(
    name: str,
    seed: int = 0,
    *,
    target: "nn.Module | Run | None" = None,
    device: str = "auto",
    show_progress: bool = True,
    **overrides: Any,
) -> Run:
    """Train a preset's target and decompose it.

    Args:
        name: a preset such as "apd/tms_5-2"; `python -m pd_helpers list` shows them all.
        seed: seed of the target, unless `target_seed` says otherwise, and of everything else.
        target: decompose this trained TMS, or this run's, instead of training one.
        device: auto, cpu, cuda or mps.
        overrides: any field of the preset, sizes included: `n_features=8, n_hidden=3, C=30, simplicity_coeff=0.1`.

    Raises ValueError or TypeError, before any work starts, for arguments that cannot work; FloatingPointError if
    the loss becomes non-finite.
    """
    started = prepare(name, seed, target=target, device=device, show_progress=show_progress, **overrides)
    return started.train(show_progress=show_progress)


@torch.no_grad()
def evaluate(run: Run) -> dict[str, Any]:
    """Measure a run on fresh data.

    Keys: `mmcs` and `ml2r` of the first layer as published, `mmcs_alive` and `ml2r_alive` of its alive components
    only; `faithfulness`; `recon`, the mean squared error against the target's output with APD's active components
    or SPD's stochastic masks; use → number `n_alive` and `l0`; and `identity_ci_error` for SPD on a target whose
    ideal importances are known.
    """
    if run.data is None:
        raise ValueError("this run was loaded without its data; set run.data to the function that draws a batch")
    model = run.components
    at = model.factors[0].device
    draw = generator(run.seed, "evaluation", at)
    x, weights = model.merge_empty_rows(run.data(N_EVALUATION, draw))
    g = run.importances(x, N_EVALUATION)
    masks = {path: sample_masks(values, draw) if run.importance else values for path, values in g.items()}
    output, target = model(x, masks).output, model.target(x)
    P, W = run.first_layer
    alive = {path: metrics.alive(values) for path, values in g.items()}
    kept = P[next(iter(alive.values()))]
    results = {
        "mmcs": metrics.mmcs(P, W),
        "ml2r": metrics.ml2r(P, W),
        "mmcs_alive": metrics.mmcs(kept, W) if len(kept) else 0.0,
        "ml2r_alive": metrics.ml2r(kept, W) if len(kept) else 0.0,
        "faithfulness": faithfulness(model.targets, model.sums).item(),
        "recon": reconstruction(output, target, N_EVALUATION).item(),
        "n_alive": {path: int(values.sum()) for path, values in alive.items()},
        "l0": {path: metrics.l0(values, weights) for path, values in g.items()},
    }
    if run.importance and isinstance(run.target, TMS):
        dense_rank = {"identity": run.target.embed.out_features}
        probe = run.importances(one_hot(run.target.embed.in_features, 0.75).to(at))
        results["identity_ci_error"] = sum(
            metrics.identity_ci_error(values, dense_rank.get(path)) for path, values in probe.items()
        )
    return results


def load(folder: str | os.PathLike, *, target: nn.Module | None = None, device: str = "cpu") -> Run:
    """Read a run written by `Run.save`.

    `target` is needed for a run on a network of your own: a module of the same architecture, whose parameters are
    overwritten by the stored ones. Raises ValueError for a folder that is no run, or a damaged one.
    """
    folder = Path(folder)
    facts = _read_facts(folder)
    tensors_file = folder / "tensors.safetensors"
    if not tensors_file.is_file() or _sha256(tensors_file) != facts["sha256"]:
        raise ValueError(f"the run in {str(folder)!r} is damaged: tensors.safetensors is missing or cut; run it again")
    tensors = load_file(tensors_file)
    try:
        return _assemble(facts, tensors, target, pick_device(device))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the run in {str(folder)!r} cannot be read: {error}") from error


def _assemble(facts: dict[str, Any], tensors: dict[str, Tensor], target: nn.Module | None, at: torch.device) -> Run:
    """The run that a folder describes."""
    config = {"apd": apd.APDConfig, "spd": spd.SPDConfig}[facts["method"]](**facts["config"])
    target_config = TMSConfig(**facts["target_config"]) if facts["target_config"] else None
    if target_config is not None:
        sizes = {key: getattr(target_config, key) for key in ("n_features", "n_hidden", "identity")}
        target = TMS(**sizes)
    elif target is None:
        raise ValueError("it decomposes a network of your own; pass one of the same architecture as target=")
    components = decompose(target, facts["layers"], rank=config.rank)
    importance = None
    if isinstance(config, spd.SPDConfig):
        importance = CausalImportance(components, d_gate=config.d_gate, generator=Generator())
    named = _named_tensors(target)
    for path, layer in components.layers.items():
        named |= {f"U.{path}": layer.U, f"V.{path}": layer.V}
    for path, mlp in importance.mlps.items() if importance else ():
        named |= {f"importance.{path}.{name}": p for name, p in mlp.named_parameters()}
    with torch.no_grad():
        for name, parameter in named.items():
            if name not in tensors or tensors[name].shape != parameter.shape:
                raise ValueError(f"{name} is not as in target=, {tuple(parameter.shape)}; pass the same architecture")
            parameter.copy_(tensors[name])
    snapshots = [
        Snapshot(step, {path: (tensors[f"snapshots.U.{path}"][i], tensors[f"snapshots.V.{path}"][i]) for path in C})
        for C in [facts["layers"]]
        for i, step in enumerate(facts["snapshot_steps"])
    ]
    columns = facts["history"]
    loaded = Run(
        name=facts["experiment"],
        seed=facts["seed"],
        config=config,
        target_config=target_config,
        components=components.to(at),
        importance=importance and importance.to(at),
        data=target_config.features() if target_config else None,
        state=None,
        records=[dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        snapshots=snapshots,
        metrics=facts["metrics"],
        seconds=facts["seconds"],
        target_seconds=facts["target_seconds"],
    )
    return loaded


def check_new_folder(folder: str | os.PathLike) -> Path:
    """Make sure, leaving nothing behind, that a run can be written to this folder; ValueError says why not."""
    path = Path(folder).resolve()
    another = f"{str(folder).rstrip('/.') or 'run'}-2"
    if path.exists() and not path.is_dir():
        raise ValueError(f"out is {str(folder)!r}, which is a file; a new folder such as {another!r} works")
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(f"out is {str(folder)!r}, which is not empty; a new folder such as {another!r} works")
    parent = next(p for p in (path, *path.parents) if p.exists())
    try:
        os.rmdir(tempfile.mkdtemp(dir=parent, prefix=".write-test-"))
    except OSError as error:
        raise ValueError(f"out is {str(folder)!r}, which cannot be written ({error.strerror}); runs/1 works") from error
    return path


def _named_tensors(target: nn.Module) -> dict[str, Tensor]:
    """Parameters, a tied one once, and buffers."""
    return {f"target.{name}": t for name, t in itertools.chain(target.named_parameters(), target.named_buffers())}


def _read_facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError) as error:
        what = "does not exist" if not folder.exists() else "holds no readable run.json"
        raise ValueError(
            f"{str(folder)!r} is not a run: it {what}; a folder written by Run.save or --out is"
        ) from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else None
        raise ValueError(f"{str(folder)!r} is not a run: its format is {found!r}, not {FORMAT!r}")
    return facts


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _checked_seed(seed: Any) -> int:
    try:
        whole = operator.index(seed)
    except TypeError:
        whole = -1
    if whole < 0 or isinstance(seed, bool):
        raise ValueError(f"seed must be a whole number of at least 0, but is {seed!r}; 0 works")
    return whole


def _check_data(target: nn.Module, data: Data, draw: Generator) -> None:
    """Raise ValueError unless data gives batches that the target takes and answers with finite numbers."""
    x = data(2, draw)
    if not isinstance(x, Tensor) or x.ndim != 2 or len(x) != 2:
        found = f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(
            f"data(2, generator) must give a tensor of shape (2, d_in), one input per row, but gave {found}"
        )
    if not x.isfinite().all():
        raise ValueError("data gives numbers that are not finite; check what it is made from")
    try:
        with torch.no_grad():
            output = target(x)
    except RuntimeError as error:
        raise ValueError(f"target does not take what data gives, shape {tuple(x.shape)}: {error}") from error
    bad = [name for name, p in target.named_parameters() if not p.isfinite().all()]
    if bad or not output.isfinite().all():
        which = f"its parameter {bad[0]!r} is" if bad else "its outputs are"
        raise ValueError(f"target is unusable: {which} not finite; train it again, at a smaller learning rate")
