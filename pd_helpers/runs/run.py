"""A `Run`: a decomposition with everything needed to understand, repeat, store and continue it.

It is made by `run`, `fit` and `prepare` (`api`), stored by `Run.save`, and read by `load` and `resume` (`loading`).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pd_helpers.analysis import activity, masking
from pd_helpers.analysis.decomposed import first_layer
from pd_helpers.analysis.editing import with_components
from pd_helpers.core.components import ComponentModel
from pd_helpers.core.config import Config
from pd_helpers.core.machine.ranks import agreed, is_first
from pd_helpers.core.method import Data, Method
from pd_helpers.core.networks.batches import Inputs, mapped, tensors
from pd_helpers.core.training import generator, progress, undisturbed
from pd_helpers.runs import files
from pd_helpers.runs.blueprint import target_tensors
from pd_helpers.runs.calls import checked
from pd_helpers.runs.checkpoints import with_checkpoints
from pd_helpers.runs.circumstances import circumstances
from pd_helpers.runs.descriptions import described, described_in_html
from pd_helpers.runs.evaluation import evaluate, fresh_batches
from pd_helpers.runs.examples import Example
from pd_helpers.runs.facts import Facts, check_metrics, plain
from pd_helpers.runs.folders import (
    check_new_folder,
    checked_path,
    has_checkpoint,
    how_to_go_on,
    how_to_resume,
    new_folder,
    shared_folder,
)
from pd_helpers.runs.inputs import Feed, taken_by
from pd_helpers.runs.interrupts import one_line
from pd_helpers.runs.recording import Snapshot
from pd_helpers.runs.selection import Candidate, best
from pd_helpers.runs.sharing import check_sharing
from pd_helpers.runs.target_stage import run_facts
from pd_helpers.targets.base import TargetConfig

if TYPE_CHECKING:
    import pandas


@dataclass(repr=False)
class Run:
    """One decomposition, being trained or finished."""

    name: str | None
    """The preset it came from; None for a network of your own."""
    seed: int
    """Seed of the target (unless `target_seed` says otherwise), initial factors, data and masks."""
    target_config: TargetConfig | None
    """How the target was made; None for a network of your own."""
    data: Data | None
    """Function that draws a batch; None for a loaded run on a network of your own."""
    candidates: list[Candidate]
    """The initialisations that are tried; once one is chosen, that one alone."""
    discarded_seconds: float = 0.0
    """Time that the initialisations took which were not chosen."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """What `evaluate` measured when training ended."""
    target_seconds: float = 0.0
    """Time the target took to train."""
    trained: dict[str, Any] = field(default_factory=dict)
    """Its `circumstances`: date, device, threads, versions; empty until training has ended."""
    _measured: str | None = field(default=None, repr=False)
    """The `_fingerprint` of the parameters that the metrics describe."""
    shipped: dict[str, Any] | None = None
    """What was left out of a run that comes with the package; None for all others."""
    example: Example | None = None
    """Some inputs of a network of your own and its answer, by which `load` and `resume` know it again."""
    first_batch: str | None = None
    """Checksum of the first inputs that `data` draws, by which `resume` knows a function of one's own again."""

    @property
    def method(self) -> Method:
        """The decomposition itself; while initialisations compete, that of the first."""
        return self.candidates[0].method

    @property
    def config(self) -> Config:
        """Settings of the decomposition: an `APDConfig` or `SPDConfig`."""
        return self.method.config

    @property
    def components(self) -> ComponentModel:
        """U and V of every decomposed layer, and the target."""
        return self.method.model

    @property
    def target(self) -> nn.Module:
        """The network that is decomposed: a frozen copy, in evaluation mode, of the one that was given."""
        return self.components.target

    @property
    def importance(self) -> nn.Module | None:
        """The network that predicts importances: SPD's causal importance functions, None for APD."""
        return self.method.importance

    @property
    def step(self) -> int:
        """Training steps taken so far."""
        return self.method.step

    @property
    def history(self) -> "pandas.DataFrame":
        """One row per recorded step: unweighted losses of the latest batch, and for the papers' networks MMCS, ML2R."""
        import pandas

        return pandas.DataFrame(self.candidates[0].record.rows)

    @property
    def snapshots(self) -> list[Snapshot]:
        """U and V at recorded steps, from the initial ones to the last."""
        return self.candidates[0].record.snapshots

    @property
    def seconds(self) -> float:
        """Time the decomposition took to train, all initialisations included."""
        return self.discarded_seconds + sum(candidate.seconds for candidate in self.candidates)

    @property
    def device(self) -> str:
        """Type of the device it ran on."""
        return self.components.factors[0].device.type

    @property
    def first_layer(self) -> tuple[Float[Tensor, "C d_out d_in"], Float[Tensor, "d_out d_in"]]:
        """Components and target weight of the first decomposed layer; see `analysis.decomposed.first_layer`."""
        return first_layer(self.components)

    @torch.no_grad()
    def importances(self, x: Inputs, n_inputs: int | None = None) -> dict[str, Float[Tensor, "*rows _"]]:
        """Use → g (*rows, C) in [0, 1]: SPD's causal importances, or 1 for APD's active components and 0 for others.

        `x` is a batch as the network takes it, or as data give it if the network's forward says what of it to take. A
        row is everything but the last dimension of what enters a layer, so that g[i, t] belongs to position t of input
        i. APD's active components are the batch top-k over the inputs given, which stand for `n_inputs` inputs if some
        all-zero ones were merged.
        """
        return self.method.importances(self.taken(x), n_inputs)

    def taken(self, x: Any) -> Inputs:
        """What the network takes of a batch, on the run's device.

        Where `inputs` said so in training, x is what it gave.
        """
        at = self.components.factors[0].device
        as_it_is = (isinstance(self.data, Feed) and self.data.is_picked) or next(tensors(x), None) is None
        return mapped(lambda tensor: tensor.to(at), x if as_it_is else taken_by(self.target)(x))

    @checked("batch", "tokens")
    def active(
        self, batch: Any, threshold: float = 0.1, *, tokens: activity.Tokens | None = None
    ) -> "pandas.DataFrame":
        """A table of what is active where: a line for every row of a layer and component with an importance above that.

        The columns are
            input: the number of the input in the batch; −1 where a layer's rows are not the inputs' own, as in a
                network that flattens inputs and positions.
            position: the row's place in its input: a whole number in a sequence, (y, x) for a convolution, which
                `table.position.isin([(y, x)])` finds; missing for layers whose rows are inputs, and left out where
                this holds for all.
            token: for a batch of tokens (inputs, positions), the one that stands there, or its text if `tokens`, such
                as a tokenizer's `decode` or a list of texts, gives it.
            layer: the use of a matrix; the column's categories are all uses, in order.
            component: its number.
            importance: as `importances` gives it.
            activation: how strongly the component reads, ‖U_c‖ V_c x with its sign; for a rank above one, ‖U_c V_c x‖,
                the size of what it writes.

        The lines are sorted by input, position, layer and falling importance. Inputs are computed a few thousand rows
        at a time, so the memory that is needed is that of the table. Raises TypeError or ValueError for arguments that
        are not such.
        """
        return activity.active(self, self.taken(batch), threshold, tokens)

    @checked("layer", "component", "batch", "tokens")
    def strongest(
        self, layer: str, component: int, batch: Any = None, n: int = 10, *, tokens: activity.Tokens | None = None
    ) -> activity.Strongest:
        """The n rows on which a component matters most: `.table`, and `.inputs`, the input of each line.

        Rows are ordered by falling importance, and where that is the same, by the size of the activation. The columns
        are `input`, `position`, `token`, `importance` and `activation`, as in `active`. Without a batch, fresh inputs
        are drawn from `data`, the same at every call, with 4,096 rows in all, or at least 256 inputs.

        Raises TypeError or ValueError for arguments that are not such, and for a run without data or batch.
        """
        if batch is None and self.data is None:
            raise ValueError(
                "batch must be given, since this run was loaded without its data, but is None; a batch, or "
                "pdh.load(folder, data=...), works"
            )
        draw = generator(self.seed, "evaluation", self.components.factors[0].device)
        batches = fresh_batches(self, draw) if batch is None else [self.taken(batch)]
        return activity.strongest(self, layer, component, batches, n, tokens)

    def edited(
        self,
        scales: Mapping[str, Mapping[int, float]] | None = None,
        *,
        swaps: Mapping[str, Sequence[tuple[int, int]]] | None = None,
        rewrites: Mapping[str, Mapping[int, Tensor]] | None = None,
        batch: Any = None,
    ) -> nn.Module:
        """A plain copy of the network with some components scaled, swapped or rewritten; see `with_components`.

        >>> run.edited({"fc1": {3: 0.0, 7: 1.5}}, swaps={"fc2": [(0, 4)]})

        Weights become W + Σ_c (s_c P'_c − P_c), so what the components don't add up to stays: `run.edited({})` is the
        network itself, in new memory. A weight that several layers share changes in all of them. A component of APD,
        which spans layers, has a scale in each of them.
        """
        return with_components(self.components, scales, swaps, rewrites, None if batch is None else self.taken(batch))

    def masked(self, masks: masking.Masks) -> AbstractContextManager[nn.Module]:
        """Within a `with` block, the network with masks on its components, for any forward pass; see `masking.masked`.

        >>> with run.masked({"fc1": {3: 0.0}, "fc2": torch.ones(20)}) as network:
        ...     network(x)

        A mask is (C,), (inputs, C), (*rows, C), or {component: number} with ones elsewhere; uses without one keep the
        network's weights. A masked matrix is Σ_c m_c P_c, without what the components don't add up to.
        """
        return masking.masked(self.components, masks)

    def export(self) -> dict[str, Tensor]:
        """The components as plain tensors on the CPU, in memory of their own, such as `safetensors` takes.

        `<layer>.U` (C, d_out, R), `<layer>.V` (C, R, d_in), and `<layer>.weight` (d_out, d_in), the network's matrix.
        """
        tensors = {}
        for path, layer in self.components.layers.items():
            for name, tensor in (("U", layer.U), ("V", layer.V), ("weight", self.components.targets[path])):
                plain_tensor = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                tensors[f"{path}.{name}" if path else name] = plain_tensor
        return tensors

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        return described_in_html(self)

    def steps(self) -> Iterator[int]:
        """Train, one step for each item taken, recording along the way; gives the steps done.

        Where several initialisations are to be tried, they are trained first, and the steps of the chosen one count.
        """
        if self.trained:
            raise ValueError("a finished run cannot be trained further; pdh.run or pdh.fit trains a new one")
        if len(self.candidates) > 1:
            for candidate in self.candidates:
                if candidate.score is None:
                    yield from candidate.compete(self.data)
            self._choose()
        for _ in self.candidates[0].train(self.data):
            yield self.step

    def _choose(self) -> None:
        """Keep the best of the candidates; FloatingPointError if even that one has diverged."""
        chosen = best(self.candidates)
        self.discarded_seconds += sum(candidate.seconds for candidate in self.candidates if candidate is not chosen)
        self.candidates = [chosen]
        chosen.check()

    @property
    def remaining(self) -> int:
        """Steps still to be taken, including those of initialisations that still compete."""
        if len(self.candidates) == 1:
            return self.config.steps - self.step
        n = self.candidates[0].steps_to_compete
        competing = sum(n - candidate.method.step for candidate in self.candidates if candidate.score is None)
        return competing + self.config.steps - n

    def train(self, *, show_progress: bool = True, out: str | os.PathLike | None = None) -> "Run":
        """Train to the end and measure.

        With `out`, a new folder, checkpoints are written there from the start and every few seconds, so that `resume`
        can continue after a crash or Ctrl-C; at the end the finished run takes their place. Of several processes, rank
        0 writes (see `fit`).
        """
        with shared_folder(out) as folder:
            return self.train_into(folder, show_progress=show_progress)

    @undisturbed()
    def train_into(self, folder: Path | None, *, show_progress: bool = True) -> "Run":
        """`train` into a folder that is this run's own and may hold its checkpoint already."""
        check_sharing(self)
        how = how_to_resume(folder or "", own_network=self.target_config is None)
        steps = with_checkpoints(self.steps(), folder, self.pack_checkpoint, how_to_go_on=how)
        with one_line(lambda: how_to_go_on(folder, own_network=self.target_config is None)):
            for _ in progress(steps, total=self.remaining, description=self.name or "run", show=show_progress):
                pass
            with agreed():
                self._measure()
                check_metrics(self.metrics)
                self.trained = circumstances(self.device)
                if folder is not None and is_first():
                    self._finish(folder)
        return self

    def _measure(self) -> None:
        """Measure the run as it is; metrics of other names stay."""
        self.metrics = {**self.metrics, **evaluate(self)}
        self.mark_measured()

    def mark_measured(self) -> None:
        """Note that the metrics describe the parameters as they are now."""
        self._measured = self._fingerprint()

    def _fingerprint(self) -> str:
        """A checksum of all parameters, by which `save` notices that they were edited."""
        return files.digest(files.stored_form(self.method.parameters()), "")

    def _finish(self, folder: Path) -> None:
        """Put the finished run where its checkpoints were."""
        try:
            files.write_run(folder, *self.pack())
        except OSError as error:
            rest = "there is no checkpoint of it either"
            if has_checkpoint(folder):
                rest = f"its last checkpoint remains: make room, then {how_to_resume(folder)}"
            message = f"the finished run cannot be written to {str(folder)!r} ({error.strerror}); {rest}"
            raise OSError(error.errno, message) from error
        files.discard_checkpoint(folder)

    def save(self, folder: str | os.PathLike) -> Path:
        """Write the run to a new folder: `run.json` and `tensors.safetensors`; returns the folder's path.

        `run.json` comes last and holds checksums of both files, so that half a run never loads, nor a changed one.
        Components that were edited after training are measured again. Of several processes, rank 0 alone writes. Raises
        ValueError if the folder exists and is not empty or cannot be made, or if metrics were added that are not
        numbers.
        """
        if len(self.candidates) > 1 or self.step < self.config.steps:
            raise ValueError(
                f"the run is at step {self.step} of {self.config.steps}, and only finished runs can be saved; "
                "run.train() finishes it, and run.train(out=...) leaves checkpoints on the way"
            )
        if not is_first():
            return checked_path(folder)
        check_new_folder(folder, "folder")
        with new_folder(folder) as path:
            if not self.metrics or self._measured != self._fingerprint():
                self._measure()
            self.metrics = plain(self.metrics)
            check_metrics(self.metrics)
            files.write_run(path, *self.pack())
            return path

    def pack(self) -> tuple[files.Tensors, Facts]:
        """The finished run, as it is stored."""
        tensors, facts = self.candidates[0].record.pack()
        tensors |= target_tensors(self.target) | self.method.parameters() | self._example_tensors()
        return files.stored_form(tensors), {**self._facts(), **facts, "seconds": self.seconds, "metrics": self.metrics}

    def pack_checkpoint(self) -> tuple[files.Tensors, Facts]:
        """All that is needed to continue, as it is stored: what belongs to a candidate under its number."""
        tensors = target_tensors(self.target) | self._example_tensors()
        facts = {**self._facts(), "discarded_seconds": self.discarded_seconds, "candidates": []}
        for i, candidate in enumerate(self.candidates):
            own_tensors, own_facts = candidate.pack(self.data)
            tensors |= {f"{i}.{name}": tensor for name, tensor in own_tensors.items()}
            facts["candidates"].append(own_facts)
        return files.stored_form(tensors), facts

    def _example_tensors(self) -> files.Tensors:
        return self.example.pack()[0] if self.example else {}

    def _facts(self) -> Facts:
        """What the run is."""
        return {
            **run_facts(self.name, self.method.name, self.seed, self.config, self.target_config, self.device),
            "layers": {path: layer.C for path, layer in self.components.layers.items()},
            "target_seconds": self.target_seconds,
            "first_batch": self.first_batch,
            **({"example": self.example.pack()[1]} if self.example else {}),
            **({"shipped": self.shipped} if self.shipped is not None else {}),
            **self.trained,
        }
