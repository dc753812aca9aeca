"""What the functions of this floor need of a run, and checks that a run is of the kind they ask for."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from pd_helpers.core.components import ComponentModel
from pd_helpers.core.method import Method
from pd_helpers.targets.gated_functions import GatedNetwork
from pd_helpers.targets.residual_mlp import ResidualMLP


@runtime_checkable
class Decomposed(Protocol):
    """A decomposition and the data it was trained on; every `Run` is one."""

    seed: int
    method: Method
    target: nn.Module
    components: ComponentModel
    data: Callable[[int, Generator], Tensor] | None

    def importances(self, x: Tensor, n_inputs: int | None = None) -> dict[str, Tensor]:
        """Use → importance (rows, C) of every component for every input."""


def residual_mlp(run: Decomposed) -> ResidualMLP:
    """The residual MLP that the run decomposes; raises TypeError if it decomposes another network."""
    if not isinstance(run.target, ResidualMLP) or isinstance(run.target, GatedNetwork):
        raise TypeError(f"run must decompose a ResidualMLP, but decomposes a {type(run.target).__name__}")
    return run.target


def gated_network(run: Decomposed) -> GatedNetwork:
    """The hand-written network that the run decomposes; raises TypeError if it decomposes another network."""
    if not isinstance(run.target, GatedNetwork):
        raise TypeError(f"run must decompose a GatedNetwork, but decomposes a {type(run.target).__name__}")
    return run.target


@torch.no_grad()
def attributions(run: Decomposed, x: Float[Tensor, "rows n_features"]) -> Float[Tensor, "rows C"]:
    """A_c(x) of an APD run, computed for a few thousand rows at a time to save memory; TypeError for other runs."""
    x = x.to(run.components.factors[0])
    chunks = run.components.chunks(x, 2048)  # for all rows at once (C, rows, n_outputs) would be large
    return torch.cat([run.method.attributions(rows) for rows in chunks])


def first_layer(model: ComponentModel) -> tuple[Float[Tensor, "C d_out d_in"], Float[Tensor, "d_out d_in"]]:
    """Components and target weight of the first decomposed layer, which is the W of the papers' tables.

    The W_in of a residual network is multiplied by W_E, so that each feature has a column there too.
    """
    path = next(iter(model.layers))
    P, W = model.layers[path].P.detach(), model.targets[path]
    if isinstance(model.target, ResidualMLP) and path.endswith("W_in"):
        return P @ model.target.W_E, W @ model.target.W_E
    return P, W
