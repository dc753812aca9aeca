"""A `Run`: a decomposition with everything needed to understand, repeat, store and continue it.

run("apd/tms_5-2", seed=0)                    train a preset's target and decompose it
fit(network, SPDConfig(...), data, layers)    decompose a network of your own
run.save("folder"); load("folder")            safetensors for tensors, JSON for the rest; no pickles
run(..., out="folder"); resume("folder")      checkpoints on the way, and going on after a kill, bit for bit
"""

import itertools
import math
import operator
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from pd_helpers import apd, experiments, metrics, spd, storage
from pd_helpers.causal_importance import CausalImportance, hard_sigmoid, sample_masks
from pd_helpers.components import ComponentModel, decompose
from pd_helpers.gated import GatedConfig
from pd_helpers.losses import OUTPUT_LOSSES, faithfulness
from pd_helpers.presets import Preset, preset
from pd_helpers.residual_mlp import ResidualMLP, ResidualMLPConfig
from pd_helpers.storage import check_new_folder
from pd_helpers.targets import TargetConfig, TMSConfig, make_target
from pd_helpers.training import State, generator, pick_device, progress, threads_for

if TYPE_CHECKING:
    import pandas

N_RECORDS = 80
"""History rows and snapshots of a run; closer together early, where more happens."""
SNAPSHOTS = 2**26
"""Bytes that all snapshots of a run may take; large components are kept less often than they are recorded."""
N_EVALUATION = 4096
"""Inputs on which a finished run is measured: one batch of SPD's size."""
CHUNK = 4096
"""Rows whose importances are computed at a time."""

TARGETS = {kind.kind: kind for kind in (TMSConfig, ResidualMLPConfig, GatedConfig)}

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
    target_config: TargetConfig | None
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
    promises: list[Tensor] = field(default_factory=list)
    """`Losses.promise` of each step, as long as there are alternatives."""
    promise: float | None = None
    """What alternatives are compared by, the lowest being best; None until it is known."""
    records: list[dict[str, float | int]] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    """U and V at recorded steps, from the initial ones to the last."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """What `evaluate` measured when training ended."""
    seconds: float = 0.0
    """Time the decomposition took to train."""
    target_seconds: float = 0.0
    """Time the target took to train."""
    trained: dict[str, Any] = field(default_factory=dict)
    """Its `circumstances`: date, device, threads, versions; empty until training has ended."""

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
            for candidate in [self, *self.alternatives]:
                if candidate.promise is None:
                    yield from candidate._trial()
            self._choose()
        for _ in self._steps():
            yield self.state.step

    def _trial(self) -> Iterator[int]:
        """Train as far as initialisations are compared, and find this one's promise."""
        n = min(self.config.start_steps, self.config.steps)
        try:
            for losses in itertools.islice(self._steps(), n - self.state.step):
                self.promises.append(losses.promise(self.config))
                yield self.state.step
            promise = torch.stack(self.promises[-n // 4 :]).mean().item()
        except FloatingPointError:
            promise = math.inf
        self.promise = promise if math.isfinite(promise) else math.inf

    def _choose(self) -> None:
        """Become the best of the alternatives."""
        candidates = [self, *self.alternatives]
        best = min(candidates, key=lambda candidate: candidate.promise)
        seconds = sum(candidate.seconds for candidate in candidates)
        vars(self).update(vars(best), alternatives=[], promises=[], seconds=seconds, target_seconds=self.target_seconds)
        self.state.check()

    @property
    def remaining(self) -> int:
        """Steps still to be taken, those of alternatives included."""
        n = min(self.config.start_steps, self.config.steps)
        candidates = [self, *self.alternatives] if self.alternatives else []
        trials = sum(n - candidate.state.step for candidate in candidates if candidate.promise is None)
        return trials + self.config.steps - (n if candidates else self.state.step)

    def _steps(self) -> Iterator[apd.Losses | spd.Losses]:
        if self.state is None:
            raise ValueError("a loaded run cannot be trained further; pdh.run or pdh.fit trains a new one")
        points = {round(self.config.steps * (i / (N_RECORDS - 1)) ** 2) for i in range(N_RECORDS)}
        n_snapshots = max(2, min(N_RECORDS, SNAPSHOTS // sum(p.nbytes for p in self.components.factors)))
        kept = set(sorted(points)[:: -(-len(points) // n_snapshots)]) | {self.config.steps}
        if not self.snapshots:
            self._take_snapshot()
        method = (
            spd.train(self.components, self.importance, self.data, self.config, self.state)
            if self.importance
            else apd.train(self.components, self.data, self.config, self.state)
        )
        began = time.perf_counter() - self.seconds
        work = self.config.batch_size * self.components.width
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
                if self.state.step in kept:
                    self._take_snapshot()
            self.seconds = time.perf_counter() - began
            yield losses

    def train(self, *, show_progress: bool = True, out: str | os.PathLike | None = None) -> "Run":
        """Train to the end and measure.

        With `out`, a new folder, checkpoints are written there from the start and every few seconds, so that `resume`
        can go on after a crash or Ctrl-C; at the end the finished run takes their place.
        """
        if out is not None:
            check_new_folder(out)
        return self._train(show_progress, None if out is None else Path(out))

    def _train(self, show_progress: bool, folder: Path | None) -> "Run":
        steps = progress(self.steps(), total=self.remaining, description=self.name or "run", show=show_progress)
        for _ in steps if folder is None else self._with_checkpoints(steps, folder):
            pass
        self.metrics = evaluate(self)
        self.trained = circumstances(self.device)
        if folder is not None:
            self._finish(folder)
        return self

    def _finish(self, folder: Path) -> None:
        """Put the finished run where its checkpoints were."""
        try:
            storage.write_run(folder, *self.pack())
        except OSError as error:
            rest = "there is no checkpoint of it either"
            if storage.has_checkpoint(folder):
                rest = f"its last checkpoint remains: make room, then {storage.how_to_resume(folder)}"
            what = f"the finished run cannot be written to {str(folder)!r} ({error.strerror}); {rest}"
            raise OSError(error.errno, what) from error
        storage.discard_checkpoint(folder)

    def _with_checkpoints(self, steps: Iterator[int], folder: Path) -> Iterator[int]:
        """The same steps; Ctrl-C waits for the end of a step and leaves a checkpoint of it."""
        checkpoints = storage.Checkpoints(folder, self.pack_checkpoint)
        with storage.waiting_interrupts() as interrupted, closing(steps):
            try:
                checkpoints.write()
                for step in steps:
                    yield step
                    if interrupted():
                        checkpoints.write()
                        raise KeyboardInterrupt(f"stopped at step {step}; {storage.how_to_resume(folder)}")
                    checkpoints.write_if_due()
            except FloatingPointError:  # as would happen again
                storage.discard_checkpoint(folder)
                raise

    @property
    def first_layer(self) -> tuple[Float[Tensor, "C d_out d_in"], Float[Tensor, "d_out d_in"]]:
        """Components and target weight of the first decomposed layer: the W of the papers' tables.

        A W_in of a residual network is multiplied by W_E, so that here too there is a column for each feature.
        """
        path = next(iter(self.components.layers))
        P, W = self.components.layers[path].P.detach(), self.components.targets[path]
        if isinstance(self.target, ResidualMLP) and path.endswith("W_in"):
            return P @ self.target.W_E, W @ self.target.W_E
        return P, W

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
            chunks = x.split(CHUNK)  # what is computed on the way takes several times the room of g
            g = [hard_sigmoid(self.importance(model.inner(model.target_forward(rows).inputs))) for rows in chunks]
            return self.importance.split(torch.cat(g))
        n_active = round(self.config.top_k * (n_inputs or len(x)))
        active = apd.active_components(model, x, self.config, n_active).to(x.dtype)
        return dict.fromkeys(model.uses, active)

    def save(self, folder: str | os.PathLike) -> Path:
        """Write the run to a new folder: `run.json` and `tensors.safetensors`.

        `run.json` comes last and holds the other file's checksum, so that half a run never loads. Raises ValueError if
        the folder exists and is not empty, or cannot be made.
        """
        folder = check_new_folder(folder)
        storage.write_run(folder, *self.pack())
        return folder

    def pack(self) -> tuple[storage.Tensors, storage.Facts]:
        """The finished run, as it is stored."""
        facts = {**self._facts(), **self._record_facts(), "metrics": self.metrics}
        return _stored(_named_tensors(self.target) | self._tensors()), facts

    def pack_checkpoint(self) -> tuple[storage.Tensors, storage.Facts]:
        """All that is needed to go on, as it is stored: what belongs to an alternative under its number."""
        tensors, facts = _named_tensors(self.target), self._facts()
        facts["candidates"] = []
        for i, run in enumerate([self, *self.alternatives]):
            tensors |= {f"{i}.{name}": t for name, t in (run._tensors() | run._state_tensors()).items()}
            facts["candidates"].append({**run._record_facts(), "step": run.state.step, "promise": run.promise})
        return _stored(tensors), facts

    def _facts(self) -> storage.Facts:
        """What the run is."""
        return {
            "experiment": self.name,
            "method": "spd" if self.importance else "apd",
            "seed": self.seed,
            "config": self.config.to_dict(),
            "target_kind": self.target_config.kind if self.target_config else None,
            "target_config": self.target_config.to_dict() if self.target_config else None,
            "layers": {path: layer.C for path, layer in self.components.layers.items()},
            "target_seconds": self.target_seconds,
            **(self.trained or circumstances(self.device)),
        }

    def _record_facts(self) -> storage.Facts:
        """What was recorded on the way."""
        return {
            "seconds": self.seconds,
            "snapshot_steps": [s.step for s in self.snapshots],
            "history": {k: [r[k] for r in self.records] for k in (self.records[0] if self.records else ())},
        }

    def _parameters(self) -> dict[str, nn.Parameter]:
        """What is trained."""
        named = {}
        for path, layer in self.components.layers.items():
            named |= {f"U.{path}": layer.U, f"V.{path}": layer.V}
        for path, mlp in self.importance.mlps.items() if self.importance else ():
            named |= {f"importance.{path}.{name}": p for name, p in mlp.named_parameters()}
        return named

    def _tensors(self) -> storage.Tensors:
        """What was trained, and the snapshots."""
        tensors = dict(self._parameters())
        for path in self.components.layers if self.snapshots else ():
            for i, factor in enumerate("UV"):
                tensors[f"snapshots.{factor}.{path}"] = torch.stack([s.factors[path][i] for s in self.snapshots])
        return tensors

    def _state_tensors(self) -> storage.Tensors:
        """Where training stands."""
        tensors = {"generator": self.state.generator.get_state(), "first_bad_step": self.state.first_bad_step}
        if self.promises:
            tensors["promises"] = torch.stack(self.promises)
        for i, moments in self.state.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": torch.as_tensor(value) for name, value in moments.items()}
        return tensors


def circumstances(device: str) -> storage.Facts:
    """When, where and with what something is trained now."""
    from pd_helpers import __version__

    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": {"pd_helpers": __version__, "torch": torch.__version__},
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
    target_config: TargetConfig | None = None,
) -> Run:
    """A run at step 0: components and importances drawn, nothing trained. `fit` says what the arguments are."""
    at, seed = pick_device(device), checked_seed(seed)
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
        components = decompose(target, C, rank=config.rank, std=config.init_std, generator=init).to(at)
        if isinstance(config, spd.SPDConfig):
            importance = CausalImportance(components, d_gate=config.d_gate, generator=init)
            state = spd.start(components, importance, config, draw)
        else:
            importance, state = None, apd.start(components, config, draw)
        run = Run(name, seed, config, target_config, components, importance, data, state)
        run.seconds = time.perf_counter() - began  # the faithfulness warm-up
        return run

    run = initialise()
    if getattr(config, "hidden_coeff", 0.0) and not run.components.hidden:
        raise ValueError(
            f"hidden_coeff is {config.hidden_coeff:g}, but no activation that {type(target).__name__} names as hidden "
            f"enters a decomposed layer; 0 works, or layers that read {', '.join(target.hidden)}"
        )
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
    out: str | os.PathLike | None = None,
) -> Run:
    """Decompose a network of your own.

    Args:
        target: any trained network; its parameters are frozen, and it moves to the device.
        config: `APDConfig` or `SPDConfig`; says which method.
        data: called as data(batch_size, generator), gives a batch (batch, d_in) on the generator's device.
        layers: paths of `nn.Linear` layers, each with `config.C` components; or path → number of components.
        seed: seed of initial factors, data and masks.
        device: auto, cpu, cuda or mps.
        out: a new folder, for checkpoints on the way (see `resume`) and the finished run.

    >>> run = pdh.fit(network, pdh.SPDConfig(C=30, steps=5000), data, ["fc1", "fc2"])

    Raises ValueError or TypeError, before any work starts, for arguments that cannot work; FloatingPointError if
    the loss blows up.
    """
    if out is not None:
        check_new_folder(out)
    return start(target, config, data, layers, seed=seed, device=device).train(show_progress=show_progress, out=out)


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
    at, seed = pick_device(device), checked_seed(seed)
    experiment, target = settle(name, target, overrides)
    config = experiment.target
    began = time.perf_counter()
    if target is None:
        target_seed = seed if config.target_seed is None else config.target_seed
        target = make_target(config, target_seed, at, show_progress=show_progress)
        target_seconds = time.perf_counter() - began
    else:
        target_seconds = 0.0
    target = config.reduce(target)
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


def settle(
    name: str, target: "nn.Module | Run | None", overrides: Mapping[str, Any]
) -> tuple[Preset, nn.Module | None]:
    """The preset with these settings, and the target if one is given; complains of all that does not fit."""
    experiment = preset(name)
    if isinstance(target, Run):
        made = target.target_config
        if made is not None:
            origin = target.seed if made.target_seed is None else made.target_seed
            overrides = {**made.to_dict(), "target_seed": origin, **overrides}
        target = target.target
    if target is not None:
        shape = experiment.target.sizes(target)
        if shape is None:
            model = type(experiment.target.build()).__name__
            raise TypeError(
                f"target must be a {model} or a Run with one, but is a {type(target).__name__}; fit() takes any"
            )
        overrides = {**shape, **overrides}
        for key, size in shape.items():
            if overrides[key] != size:
                raise ValueError(f"{key} is {overrides[key]}, but the target given has {size}; leave {key} out")
    return experiment.replace(**overrides), target


def run(
    name: str,
    seed: int = 0,
    *,
    target: "nn.Module | Run | None" = None,
    device: str = "auto",
    show_progress: bool = True,
    out: str | os.PathLike | None = None,
    **overrides: Any,
) -> Run:
    """Train a preset's target and decompose it.

    Args:
        name: a preset such as "apd/tms_5-2"; `python -m pd_helpers list` shows them all.
        seed: seed of the target, unless `target_seed` says otherwise, and of everything else.
        target: decompose this network of the preset's kind, or this run's, instead of training one.
        device: auto, cpu, cuda or mps.
        out: a new folder, for checkpoints on the way (see `resume`) and the finished run.
        overrides: any field of the preset, sizes included: `n_features=8, n_hidden=3, C=30, simplicity_coeff=0.1`.

    Raises ValueError or TypeError, before any work starts, for arguments that cannot work; FloatingPointError if
    the loss blows up.
    """
    if out is not None:
        check_new_folder(out)
    started = prepare(name, seed, target=target, device=device, show_progress=show_progress, **overrides)
    return started.train(show_progress=show_progress, out=out)


def resume(
    folder: str | os.PathLike,
    *,
    target: nn.Module | None = None,
    data: Data | None = None,
    show_progress: bool = True,
) -> Run:
    """Go on with a run that was stopped, from the last checkpoint in the folder it had as `out`.

    On a CPU, with the same versions and number of threads (`torch.set_num_threads`), the result is that of a run which
    was never stopped, bit for bit; where these differ, a warning says so. A finished run is loaded, not repeated.

    Args:
        folder: what was `out`.
        target: for a network of your own, one of the same architecture; its parameters are overwritten.
        data: for a network of your own, the same function as before.

    >>> run = pdh.resume("runs/1")

    Raises ValueError for a folder without a run, a damaged one, or a device that this machine lacks.
    """
    folder = Path(folder)
    if storage.is_finished(folder):
        run = load(folder, target=target)
        storage.discard_checkpoint(folder)  # left if the process ended between the two
        run.data = data or run.data
        return run
    tensors, facts = storage.read_checkpoint(folder)
    if facts.get("target_config") is None and (target is None or data is None):
        raise ValueError(
            f"the run in {str(folder)!r} decomposes a network of your own, so pdh.resume needs target=, a module of "
            "the same architecture, and data=, the function that draws its batches"
        )
    try:
        at = pick_device(facts.get("device"))
    except ValueError as error:
        raise ValueError(
            f"the run in {str(folder)!r} was trained on {facts.get('device')}, which torch does not find here; resume "
            "it where it was, or start it again on another device"
        ) from error
    try:
        target = _stored_target(facts, tensors, target, at)
        first, *first.alternatives = (
            _assemble(facts | candidate, _below(f"{i}.", tensors), target, data)
            for i, candidate in enumerate(facts["candidates"])
        )
        if data is not None:
            _check_data(target, data, generator(first.seed, "data", at))
        _warn_of_differences(facts, circumstances(first.device))
    except Exception as error:  # whatever a stranger's file leads to
        raise ValueError(f"the run in {str(folder)!r} cannot be resumed: {error}") from error
    return first._train(show_progress, folder)


@torch.no_grad()
def evaluate(run: Run) -> dict[str, Any]:
    """Measure a run on fresh data.

    Keys: `mmcs` and `ml2r` of the first layer as published, `mmcs_alive` and `ml2r_alive` of its alive components
    only; `faithfulness`; `recon`, the error against the target's output (squared, or of SPD what `config.output_loss`
    says) with APD's active components or SPD's stochastic masks; use → number `n_alive` and `l0`; and what
    `experiments.extra_metrics` adds.
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
    compare = OUTPUT_LOSSES[run.config.output_loss]
    P, W = run.first_layer
    alive = {path: metrics.alive(values) for path, values in g.items()}
    kept = P[next(iter(alive.values()))]
    results = {
        "mmcs": metrics.mmcs(P, W),
        "ml2r": metrics.ml2r(P, W),
        "mmcs_alive": metrics.mmcs(kept, W) if len(kept) else 0.0,
        "ml2r_alive": metrics.ml2r(kept, W) if len(kept) else 0.0,
        "faithfulness": faithfulness(model.targets, model.sums, model.n_all_parameters).item(),
        "recon": compare(output, target, N_EVALUATION).item(),
        "n_alive": {path: int(values.sum()) for path, values in alive.items()},
        "l0": {path: metrics.l0(values, weights) for path, values in g.items()},
    }
    return results | experiments.extra_metrics(run, draw)


def load(folder: str | os.PathLike, *, target: nn.Module | None = None, device: str = "cpu") -> Run:
    """Read a run written by `Run.save`.

    `target` is needed for a run on a network of your own: a module of the same architecture, whose parameters are
    overwritten by the stored ones. Raises ValueError for a folder that is no run, or a damaged one.
    """
    folder = Path(folder)
    at = pick_device(device)
    tensors, facts = storage.read_run(folder)
    try:
        for path in facts["layers"]:
            tensors = storage.with_factors(path, tensors)
        return _assemble(facts, tensors, _stored_target(facts, tensors, target, at))
    except Exception as error:  # whatever a stranger's file leads to
        raise ValueError(f"the run in {str(folder)!r} cannot be read: {error}") from error


def _stored_target(
    facts: storage.Facts, tensors: storage.Tensors, target: nn.Module | None, at: torch.device
) -> nn.Module:
    """The target as it was: a toy model is built anew, a network of your own gets its parameters back."""
    if facts["target_config"]:
        target = _target_config(facts).build()
    elif target is None:
        raise ValueError("it decomposes a network of your own; pass one of the same architecture as target=")
    _fill(_named_tensors(target), tensors)
    return target.to(at)


def _target_config(facts: storage.Facts) -> TargetConfig | None:
    return TARGETS[facts["target_kind"]](**facts["target_config"]) if facts["target_config"] else None


def _assemble(facts: storage.Facts, tensors: storage.Tensors, target: nn.Module, data: Data | None = None) -> Run:
    """A run as it was stored; one from a checkpoint can be trained further."""
    config = {"apd": apd.APDConfig, "spd": spd.SPDConfig}[facts["method"]](**facts["config"])
    target_config = _target_config(facts)
    ranks = {tensors[f"U.{path}"].shape[-1] for path in facts["layers"]}  # of a shipped run, lower than the config's
    components = decompose(target, facts["layers"], rank=ranks.pop() if len(ranks) == 1 else config.rank)
    importance = None
    if isinstance(config, spd.SPDConfig):
        importance = CausalImportance(components, d_gate=config.d_gate, generator=Generator())
    columns = facts["history"]
    run = Run(
        name=facts["experiment"],
        seed=facts["seed"],
        config=config,
        target_config=target_config,
        components=components,
        importance=importance,
        data=data or (target_config.features() if target_config else None),
        state=None,
        records=[dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        metrics=facts.get("metrics", {}),
        seconds=facts["seconds"],
        target_seconds=facts["target_seconds"],
    )
    _fill(run._parameters(), tensors)
    for i, step in enumerate(facts["snapshot_steps"]):
        stored = {path: [tensors[f"snapshots.{factor}.{path}"][i] for factor in "UV"] for path in components.layers}
        dtype = components.factors[0].dtype
        run.snapshots.append(Snapshot(step, {path: (U.to(dtype), V.to(dtype)) for path, (U, V) in stored.items()}))
    if "metrics" in facts:
        run.trained = {key: facts[key] for key in circumstances(run.device) if key in facts}
    else:
        _restore_state(run, facts, tensors)
    return run


def _restore_state(run: Run, facts: storage.Facts, tensors: storage.Tensors) -> None:
    """Let training stand where it stood when the checkpoint was written."""
    at = run.components.factors[0].device
    draw, config = generator(run.seed, "data", at), run.config.replace(faithfulness_warmup_steps=0)
    if isinstance(config, apd.APDConfig):
        config = config.replace(unit_norm=False)  # they are of length one already; rounding again would change them
    state = (
        spd.start(run.components, run.importance, config, draw)
        if run.importance
        else apd.start(run.components, config, draw)
    )
    draw.set_state(tensors["generator"])
    moments: dict[int, storage.Tensors] = {}
    for key, tensor in _below("optimizer.", tensors).items():
        i, name = key.split(".", 1)
        moments.setdefault(int(i), {})[name] = tensor
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": moments})
    state.step, state.first_bad_step = facts["step"], tensors["first_bad_step"].to(at)
    run.state, run.promise = state, facts["promise"]
    run.promises = list(tensors["promises"].to(at)) if "promises" in tensors else []


def _warn_of_differences(stored: storage.Facts, now: storage.Facts) -> None:
    """Say what keeps a resumed run from being the same bit for bit."""
    if stored["threads"] != now["threads"]:
        warnings.warn(
            f"this run was started on {stored['threads']} threads and goes on with {now['threads']}, so its numbers "
            f"may differ by rounding from those it would have had; torch.set_num_threads({stored['threads']}) before "
            f"resuming, or OMP_NUM_THREADS={stored['threads']} on the command line, makes them the same",
            stacklevel=3,
        )
    if stored["versions"] != now["versions"]:
        was, has = (", ".join(f"{k} {v}" for k, v in facts["versions"].items()) for facts in (stored, now))
        warnings.warn(
            f"this run was started with {was} and goes on with {has}, so its numbers may differ from those it would "
            "have had",
            stacklevel=3,
        )


def _named_tensors(target: nn.Module) -> storage.Tensors:
    """Parameters, a tied one once, and buffers."""
    return {f"target.{name}": t for name, t in itertools.chain(target.named_parameters(), target.named_buffers())}


def _stored(tensors: storage.Tensors) -> storage.Tensors:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _below(prefix: str, tensors: storage.Tensors) -> storage.Tensors:
    """Those whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


@torch.no_grad()
def _fill(named: Mapping[str, Tensor], tensors: storage.Tensors) -> None:
    """Overwrite tensors by the stored ones of the same name."""
    for name, tensor in named.items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            raise ValueError(f"{name} is not as in target=, {tuple(tensor.shape)}; pass the same architecture")
        tensor.copy_(tensors[name])


def checked_seed(seed: Any) -> int:
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
