"""A network whose mechanisms are written by hand: functions of x, each switched by a control bit (APD section B.1).

    y(x, b) = Σ_i b_i F_i(x)          F_i(x) = a cos(b x + c) + d sin(e x + f) + g,    x in [0, 5],  b_i in {0, 1}

Each F_i is interpolated linearly between m equally spaced points of [0, 5] by m neurons of its own,

    F_i(x) ≈ Σ_j w_j ReLU(x - t_j),   t = -Δ, 0, Δ, …, 5 - Δ,   Δ = 5 / (m - 1)

where w_j is the change of slope at t_j, and the knot below 0 lifts the line from zero to F_i(0). Every neuron has the
bias -5, which holds it below zero while its bit is off; when the bit is on, its weight compensates for the bias:
ReLU(x + (5 - t_j) b_i - 5). The neurons are distributed over the layers at random. The first dimensions of the residual
stream hold the input, and the last one holds the output.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from pd_helpers.core.config import RAREST, number, whole
from pd_helpers.core.machine.memory import check_sizes
from pd_helpers.core.training import generator
from pd_helpers.targets.base import Extent, TargetConfig
from pd_helpers.targets.residual_mlp import ResidualMLP

X_MAX = 5.0
"""x lies in [0, 5]."""
RANGES = {
    "a": (-1.0, 1.0),
    "b": (0.1, 1.0),
    "c": (-torch.pi, torch.pi),
    "d": (-1.0, 1.0),
    "e": (0.1, 1.0),
    "f": (-torch.pi, torch.pi),
    "g": (-1.0, 1.0),
}
"""Coefficient → the range from which it is drawn (APD Table 2)."""


@dataclass(frozen=True)
class GatedInputs:
    """The data distribution: x uniform on [0, 5], and control bits that are 1 with probability p; call it to draw."""

    n_functions: int
    probability: float

    def __call__(self, batch_size: int, generator: Generator) -> Float[Tensor, "batch n_inputs"]:
        u = torch.rand(batch_size, 1 + self.n_functions, generator=generator, device=generator.device)
        return torch.cat([X_MAX * u[:, :1], (u[:, 1:] < self.probability).to(u.dtype)], dim=1)


class GatedNetwork(ResidualMLP):
    """A residual MLP with biases that computes gated functions.

    Attributes: coefficients (n_functions, 7), a to g of each function; owner (n_layers, d_mlp), the function that each
    neuron serves.
    """

    def __init__(self, *, n_functions: int, n_neurons: int, n_layers: int):
        check_sizes(
            lambda n_functions, n_neurons, n_layers: 2 * n_functions**2 * n_neurons + n_layers,
            n_functions=n_functions,
            n_neurons=n_neurons,
            n_layers=n_layers,
        )
        super().__init__(
            n_features=1 + n_functions,
            n_outputs=1,
            d_resid=2 + n_functions,
            d_mlp=n_functions * n_neurons // n_layers,
            n_layers=n_layers,
            bias=True,
        )
        self.W_E.copy_(torch.eye(2 + n_functions, 1 + n_functions))
        self.W_U[0, -1] = 1.0
        self.register_buffer("coefficients", torch.zeros(n_functions, len(RANGES)))
        self.register_buffer("owner", torch.zeros(n_layers, self.d_mlp, dtype=torch.long))

    def silent_rows(self, x: Float[Tensor, "rows n_inputs"]) -> Bool[Tensor, " rows"] | None:
        """Rows on which all neurons are off; in the network as it is written, those without a control bit.

        There the stream is W_E x in every layer. None if weights of zero would turn a neuron on, or if the output reads
        what the embedding writes: then such rows are not like a row of zeros.
        """
        if any((mlp.W_in.bias > 0).any() for mlp in self.mlps) or (self.W_U @ self.W_E).any():
            return None
        s = F.linear(x, self.W_E)  # (rows, d_resid)
        return torch.cat([mlp.W_in(s) for mlp in self.mlps], dim=1).amax(dim=1) <= 0

    @property
    def ideal(self) -> dict[tuple[str, ...], int | None]:
        """Empty: the right decomposition by SPD is unknown, as the neurons of a function read the same two inputs."""
        return {}

    def functions(self, x: Float[Tensor, " points"]) -> Float[Tensor, "n_functions points"]:
        """F_i(x) itself, not the network's interpolation of it."""
        a, b, c, d, e, f, g = self.coefficients.unsqueeze(-1).unbind(1)
        return a * torch.cos(b * x + c) + d * torch.sin(e * x + f) + g

    def owners(self) -> dict[str, Int[Tensor, "d_out d_in"]]:
        """Layer → the function that each weight serves, or -1 where the weight is zero."""
        labels = {}
        for i, (mlp, owner) in enumerate(zip(self.mlps, self.owner, strict=True)):
            for name, owners in (("W_in", owner.unsqueeze(1)), ("W_out", owner.unsqueeze(0))):
                weight = getattr(mlp, name).weight
                labels[f"mlps.{i}.{name}"] = torch.where(weight == 0, -1, owners.expand_as(weight))
        return labels


def knots(n_neurons: int) -> Float[Tensor, " points"]:
    """The equally spaced points of [0, 5] between which `n_neurons` neurons interpolate."""
    return torch.linspace(0, X_MAX, n_neurons)


@torch.no_grad()
def write_gated(model: GatedNetwork, draw: Generator) -> GatedNetwork:
    """Draw the functions and write the weights that compute them."""
    low, high = torch.tensor(list(RANGES.values())).T
    n_functions = len(model.coefficients)
    model.coefficients.copy_(low + (high - low) * torch.rand(n_functions, len(RANGES), generator=draw))
    n_neurons = model.owner.numel() // n_functions
    x, step = knots(n_neurons), X_MAX / (n_neurons - 1)
    places = torch.randperm(model.owner.numel(), generator=draw).view(n_functions, n_neurons)
    for function, (values, neurons) in enumerate(zip(model.functions(x), places, strict=True)):
        slopes = torch.diff(values, prepend=torch.zeros(1)) / step  # (n_neurons,), of which the first lies below x = 0
        changes = torch.diff(slopes, prepend=torch.zeros(1))
        for j, neuron in enumerate(neurons.tolist()):
            layer, place = divmod(neuron, model.d_mlp)
            mlp = model.mlps[layer]
            mlp.W_in.weight[place].zero_()
            mlp.W_in.weight[place, 0] = 1.0
            mlp.W_in.weight[place, 1 + function] = X_MAX - (j - 1) * step
            mlp.W_in.bias[place] = -X_MAX
            mlp.W_out.weight[:, place].zero_()
            mlp.W_out.weight[-1, place] = changes[j]
            model.owner[layer, place] = function
    return model.requires_grad_(False)


@dataclass(frozen=True)
class GatedConfig(TargetConfig):
    """The hand-written network; defaults are APD's (section B.1.1)."""

    kind = "gated"
    n_functions: int = whole(4)
    """Number of functions, and of control bits."""
    n_neurons: int = whole(10, at_least=2)
    """Number of neurons for each function."""
    n_layers: int = whole(2)
    """Number of MLP layers, which have equally many neurons."""
    feature_probability: float = number(0.05, high=1.0, least=RAREST)
    """Probability that a control bit is on."""

    def __post_init__(self):
        super().__post_init__()
        if self.n_functions * self.n_neurons % self.n_layers:
            raise ValueError(
                f"n_layers must divide n_functions · n_neurons = {self.n_functions * self.n_neurons}, but is "
                f"{self.n_layers}; 1 works"
            )

    @property
    def summary(self) -> str:
        return f"{self.n_functions} functions of {self.n_neurons} neurons each"

    @property
    def n_floats(self) -> int:
        return 2 * self.n_functions * self.n_neurons * (2 + self.n_functions)

    @property
    def matrices(self) -> list[tuple[int, int, int]]:
        d_mlp, width = self.n_functions * self.n_neurons // self.n_layers, 2 + self.n_functions
        return [(self.n_layers, d_mlp, width), (self.n_layers, width, d_mlp)]

    @property
    def extent(self) -> Extent:
        n_parameters = 2 * self.n_functions * self.n_neurons * (2 + self.n_functions)
        return Extent(self.n_functions, self.feature_probability, 1, n_parameters)

    def features(self) -> GatedInputs:
        return GatedInputs(self.n_functions, self.feature_probability)

    def build(self) -> GatedNetwork:
        return GatedNetwork(n_functions=self.n_functions, n_neurons=self.n_neurons, n_layers=self.n_layers)

    def make(self, seed: int, device: str | torch.device = "cpu", *, show_progress: bool = True) -> GatedNetwork:
        return write_gated(self.build(), generator(seed, "target_init")).to(device)

    @classmethod
    def sizes(cls, target: nn.Module) -> dict[str, Any] | None:
        if not isinstance(target, GatedNetwork):
            return None
        n_functions = len(target.coefficients)
        return {
            "n_functions": n_functions,
            "n_neurons": target.owner.numel() // n_functions,
            "n_layers": len(target.mlps),
        }
