"""What is recorded while a run trains: at some steps a row of its history, and at most of those a snapshot of U, V."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers.analysis import metrics
from pd_helpers.analysis.decomposed import first_layer
from pd_helpers.core.known_network import KnownNetwork
from pd_helpers.core.method import Method

N_RECORDS = 80
"""Number of history rows and snapshots of a run; they lie closer together early, where more happens."""
SNAPSHOT_BYTES = 2**26
"""Bytes that all snapshots of a run may take; of large components fewer snapshots than rows are kept."""


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
class Record:
    """History rows and snapshots of one training."""

    rows: list[dict[str, float | int]] = field(default_factory=list)
    """For each recorded step: `step`, the unweighted losses, and for networks of the papers MMCS and ML2R of the first
    layer."""
    snapshots: list[Snapshot] = field(default_factory=list)
    """U and V at recorded steps, from the initial ones to the last."""

    def begin(self, method: Method) -> None:
        """Keep the initial components, unless they are kept already."""
        if not self.snapshots:
            self.take_snapshot(method)

    def add(self, method: Method, losses: Any) -> None:
        """Record the step just taken, with its losses."""
        values = {name: value.item() for name, value in losses._asdict().items()}
        scores = {}
        if isinstance(method.model.target, KnownNetwork):
            P, W = first_layer(method.model)
            scores = {"mmcs": metrics.mmcs(P, W), "ml2r": metrics.ml2r(P, W)}
        self.rows.append({"step": method.step, **values, **scores})
        if method.step in snapshot_steps(method):
            self.take_snapshot(method)

    def take_snapshot(self, method: Method) -> None:
        """Keep the components as they are now."""

        def copy(factor: Tensor) -> Tensor:
            return factor.detach().to("cpu", copy=True)

        factors = {path: (copy(layer.U), copy(layer.V)) for path, layer in method.model.layers.items()}
        self.snapshots.append(Snapshot(method.step, factors))

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and facts to be stored: `snapshots.U.<layer>` (snapshots, C, d_out, R), likewise V, and the rows."""
        tensors = {}
        for path in self.snapshots[0].factors if self.snapshots else ():
            for i, factor in enumerate("UV"):
                tensors[f"snapshots.{factor}.{path}"] = torch.stack([s.factors[path][i] for s in self.snapshots])
        columns = self.rows[0] if self.rows else ()
        history = {name: [row[name] for row in self.rows] for name in columns}
        return tensors, {"snapshot_steps": [s.step for s in self.snapshots], "history": history}

    @classmethod
    def unpack(cls, tensors: dict[str, Tensor], facts: dict[str, Any], method: Method) -> "Record":
        """The record that `pack` packed, with snapshots in the dtype of the method's components."""
        history, dtype = facts["history"], method.model.factors[0].dtype
        rows = [dict(zip(history, values, strict=True)) for values in zip(*history.values(), strict=True)]
        snapshots = []
        for i, step in enumerate(facts["snapshot_steps"]):
            stored = {
                path: [tensors[f"snapshots.{f}.{path}"][i].to(dtype) for f in "UV"] for path in method.model.layers
            }
            snapshots.append(Snapshot(step, {path: (U, V) for path, (U, V) in stored.items()}))
        return cls(rows, snapshots)


def record_steps(n_steps: int) -> set[int]:
    """The steps at which a training of so many steps is recorded; their distance grows with the step."""
    return {round(n_steps * (i / (N_RECORDS - 1)) ** 2) for i in range(N_RECORDS)}


def snapshot_steps(method: Method) -> set[int]:
    """Those of the recorded steps at which a snapshot is kept too, the last one always among them."""
    steps = sorted(record_steps(method.config.steps))
    n_snapshots = max(2, min(N_RECORDS, SNAPSHOT_BYTES // sum(factor.nbytes for factor in method.model.factors)))
    return {*steps[:: -(-len(steps) // n_snapshots)], method.config.steps}
