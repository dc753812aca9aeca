"""A method in one file, for the tests: SPD whose masks are not random but fixed at the importances, m = g."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from pd_helpers.core import losses
from pd_helpers.core.causal_importance import CausalImportance, Table, hard_sigmoid, lower_leaky, upper_leaky
from pd_helpers.core.config import Config, number, whole
from pd_helpers.core.method import Data, Method
from pd_helpers.core.training import adam


@dataclass(frozen=True)
class FixedMasksConfig(Config):
    """Settings of one run."""

    C: int = whole(6)
    rank: int | None = whole(1)
    d_gate: int = whole(4)
    importance_coeff: float = number(1e-4)
    lr: float = number(2e-2, open=True)
    steps: int = whole(150)
    batch_size: int = whole(64)
    init_std: float | None = number(None, open=True)
    n_init: int = whole(2)
    selection_steps: int = whole(10)
    output_loss = "mse"


class Losses(NamedTuple):
    """The unweighted losses of one batch, and what the method remembers of all batches so far."""

    faithfulness: Tensor
    recon: Tensor
    importance: Tensor


class FixedMasks(Method):
    """Importances and components are trained so that the network with every component scaled by g is the target."""

    name = "fixed masks"
    Config = FixedMasksConfig
    spans_layers = False

    def build(self, init: Generator) -> None:
        self.importance = CausalImportance(self.model, d_gate=self.config.d_gate, generator=init)
        self.largest_recon = torch.zeros(())  # state of its own, to be saved and resumed

    def build_optimizer(self) -> torch.optim.Optimizer:
        return adam([*self.model.factors, *self.importance.parameters()], self.config.lr)

    def train(self, data: Data) -> Iterator[Losses]:
        while self.step < self.config.steps:
            loss = self.batch_losses(data(self.config.batch_size, self.generator), self.generator)
            total = loss.faithfulness + loss.recon + self.config.importance_coeff * loss.importance
            self.optimizer.zero_grad()
            total.backward()
            self.optimizer.step()
            self.largest_recon = torch.maximum(self.largest_recon, loss.recon.detach())
            self.step, self.total_loss = self.step + 1, total.detach()
            yield Losses(*(term.detach() for term in loss))

    def batch_losses(self, x: Tensor, generator: Generator, step: int | None = None) -> Losses:
        rows, counts, n_inputs = self.model.merge_empty_rows(x)
        gates = self._gates(rows)
        output = self.model(rows, self._by_use(gates, lower_leaky)).output
        return Losses(
            self.model.faithfulness(),
            losses.recon(output, self.model.target(rows), n_inputs),
            sum(losses.importance_minimality(upper_leaky(g.values), 1.0, counts, n_inputs) for g in gates),
        )

    def _gates(self, x: Tensor) -> list[Table]:
        return self.importance(self.model.inner(self.model.target_forward(x).inputs))

    def _by_use(self, gates: list[Table], sigmoid: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        return {use: g for table in gates for use, g in table.split(sigmoid(table.values)).items()}

    def importances(self, x: Tensor, n_inputs: int | None = None) -> dict[str, Tensor]:
        return self._by_use(self._gates(x), hard_sigmoid)

    def sample_masks(self, importances: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        return importances

    def parameters(self) -> dict[str, nn.Parameter]:
        named = self.importance.named_parameters()
        return super().parameters() | {f"importance.{name}": parameter for name, parameter in named}

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"largest_recon": self.largest_recon}

    def load_state(self, tensors: dict[str, Any], step: int) -> None:
        super().load_state(tensors, step)
        self.largest_recon = tensors["largest_recon"]
