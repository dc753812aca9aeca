"""Residual MLPs: compressed computation in one layer, cross-layer mechanisms in two or three.

    s_0 = W_E x                                        the residual stream, d_resid wide
    s_{l+1} = s_l + W_out,l ReLU(W_in,l s_l + b_l)     only the network of `gated_functions` has biases b_l
    y = W_U s_L

W_E (d_resid, n_features) has random columns of length one, W_U = W_Eᵀ, and both stay as they are. The MLPs, with
fewer neurons than features, learn y_i = x_i + ReLU(x_i) (APD sections 3.2, 3.3 and D.2; SPD sections 3.3 and 3.4).

The stream is 1,000 wide, but no computation needs that width. There are two exact savings:

    by_products   in training: by associativity W_in (W_E x) = (W_in W_E) x, and W_in W_E is small
    narrow        in decomposing: W_E, W_Uᵀ, W_inᵀ and W_out together span only a few hundred dimensions. In an
                  orthonormal basis Q of that space the network is the same, and so are all losses and attributions of
                  components V Qᵀ and Q U. Gradients never lead out of that space; a part of a component outside would
                  not change the output, and would raise the faithfulness and simplicity losses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pd_helpers.core.config import RAREST, SLOWEST, choice, number, whole
from pd_helpers.core.known_network import KnownNetwork
from pd_helpers.core.machine.memory import check_sizes
from pd_helpers.core.training import generator
from pd_helpers.targets.base import Extent, TrainedConfig
from pd_helpers.targets.features import SparseFeatures


class MLP(nn.Module):
    """W_out ReLU(W_in s + b)."""

    def __init__(self, d_resid: int, d_mlp: int, bias: bool):
        super().__init__()
        self.W_in = nn.Linear(d_resid, d_mlp, bias=bias)  # (d_mlp, d_resid)
        self.W_out = nn.Linear(d_mlp, d_resid, bias=False)  # (d_resid, d_mlp)

    def forward(self, s: Float[Tensor, "rows d_resid"]) -> Float[Tensor, "rows d_resid"]:
        return self.W_out(F.relu(self.W_in(s)))


class ResidualMLP(KnownNetwork):
    """A residual network of MLPs between a fixed embedding and a fixed unembedding.

    Args:
        n_features: number of inputs.
        n_outputs: number of outputs; None means as many as inputs.
        d_resid: width of the residual stream.
        d_mlp: number of neurons in each layer.
        n_layers: number of MLPs.
        bias: whether neurons have biases.
        width: number of dimensions in which the stream is held, see `narrow`; None means `d_resid`.

    Attributes: W_E (width, n_features); W_U (n_outputs, width); mlps, each with layers W_in and W_out.
    """

    def __init__(
        self,
        *,
        n_features: int,
        d_resid: int,
        d_mlp: int,
        n_layers: int,
        n_outputs: int | None = None,
        bias: bool = False,
        width: int | None = None,
    ):
        super().__init__()
        check_sizes(
            lambda n_features, d_resid, d_mlp, n_layers: (width or d_resid) * (n_features + 2 * n_layers * d_mlp),
            n_features=n_features,
            d_resid=d_resid,
            d_mlp=d_mlp,
            n_layers=n_layers,
        )
        self.d_resid, self.d_mlp = d_resid, d_mlp
        width, n_outputs = width or d_resid, n_outputs or n_features
        self.register_buffer("W_E", torch.zeros(width, n_features))
        self.register_buffer("W_U", torch.zeros(n_outputs, width))
        self.mlps = nn.ModuleList(MLP(width, d_mlp, bias) for _ in range(n_layers))

    def forward(self, x: Float[Tensor, "rows n_features"]) -> Float[Tensor, "rows n_outputs"]:
        s = F.linear(x, self.W_E)  # (rows, width)
        for mlp in self.mlps:
            s = s + mlp(s)
        return F.linear(s, self.W_U)

    @property
    def n_features(self) -> int:
        """Number of inputs."""
        return self.W_E.shape[1]

    @property
    def n_neurons(self) -> int:
        """Number of neurons in all layers together."""
        return sum(mlp.W_in.out_features for mlp in self.mlps)

    @property
    def layers(self) -> list[str]:
        """Paths of the matrices to decompose."""
        return [f"mlps.{i}.{name}" for i in range(len(self.mlps)) for name in ("W_in", "W_out")]

    def parameter_count(self, layer: str) -> int:
        """Number of parameters of the full matrix, d_mlp × d_resid, for which a narrow one stands."""
        return self.d_mlp * self.d_resid

    @property
    def hidden_layers(self) -> list[str]:
        """Paths of the layers whose inputs are activations after a ReLU."""
        return [f"mlps.{i}.W_out" for i in range(len(self.mlps))]

    @property
    def ideal(self) -> dict[tuple[str, ...], int | None]:
        """The right decomposition by SPD: uses → None for one subcomponent per feature, or a number of subcomponents.

        Every W_in should have one subcomponent for each feature, and all W_out together one for each neuron, which may
        matter on every input.
        """
        W_in, W_out = self.layers[::2], self.layers[1::2]
        return {**{(path,): None for path in W_in}, tuple(W_out): self.n_neurons}

    def by_products(self, x: Float[Tensor, "rows n_features"]) -> Float[Tensor, "rows n_outputs"]:
        """The same output, computed with the stream as coefficients of the columns of W_E and of every W_out."""
        coefficients, basis = x, self.W_E  # s = basis @ coefficients
        for mlp in self.mlps:
            h = F.relu(F.linear(coefficients, mlp.W_in.weight @ basis, mlp.W_in.bias))
            coefficients = torch.cat([coefficients, h], dim=1)
            basis = torch.cat([basis, mlp.W_out.weight], dim=1)
        return F.linear(coefficients, self.W_U @ basis)

    @torch.no_grad()
    def narrow(self) -> tuple["ResidualMLP", Float[Tensor, "d_resid width"]]:
        """An equal network whose stream has only the dimensions in use, and an orthonormal basis Q of these.

        W_in Q, Qᵀ W_out, Qᵀ W_E and W_U Q take the places of W_in, W_out, W_E and W_U; V Qᵀ and Q U are the components
        in the full stream. A network that is narrow already is returned itself, with the identity as Q.

        Decompositions of the narrow network are those of this one whose components stay within Q. With one layer, parts
        of components outside of Q change no output. With more, they can under masks: one layer's W_out may write there
        what a later W_in reads, as long as both cancel in the sums over components.
        """
        if self.W_E.shape[0] < self.d_resid:
            return self, torch.eye(len(self.W_E), dtype=self.W_E.dtype, device=self.W_E.device)

        def exact(matrix: Tensor) -> Tensor:
            return matrix.cpu().double()

        matrices = [self.W_U.T] if torch.equal(self.W_E, self.W_U.T) else [self.W_E, self.W_U.T]
        for mlp in self.mlps:
            matrices += [mlp.W_in.weight.T, mlp.W_out.weight]
        Q = torch.linalg.qr(exact(torch.cat(matrices, dim=1))).Q  # (d_resid, width), orthonormal columns
        small = ResidualMLP(
            n_features=self.W_E.shape[1],
            n_outputs=len(self.W_U),
            d_resid=self.d_resid,
            d_mlp=self.d_mlp,
            n_layers=len(self.mlps),
            bias=self.mlps[0].W_in.bias is not None,
            width=Q.shape[1],
        ).to(self.W_E)
        small.W_E.copy_(Q.T @ exact(self.W_E))
        small.W_U.copy_(exact(self.W_U) @ Q)
        for mlp, small_mlp in zip(self.mlps, small.mlps, strict=True):
            small_mlp.W_in.weight.copy_(exact(mlp.W_in.weight) @ Q)
            small_mlp.W_out.weight.copy_(Q.T @ exact(mlp.W_out.weight))
            if mlp.W_in.bias is not None:
                small_mlp.W_in.bias.copy_(mlp.W_in.bias)
        return small.requires_grad_(False), Q.to(self.W_E)

    def closed_form_attributions(
        self,
        x: Float[Tensor, "rows n_features"],
        factors: Mapping[str, tuple[Float[Tensor, "C d_out R"], Float[Tensor, "C R d_in"]]],
        weights: Mapping[str, Float[Tensor, "d_out d_in"]],
    ) -> Float[Tensor, "rows C"]:
        """APD's eq. 8 in closed form, forward through the layers, for all components at once.

        As W_in moves along P and W_out along Q, the derivatives of the neurons' activations h and of the stream s are

            ḣ = [z > 0] (P s + W_in ṡ)        ṡ ← ṡ + W_out ḣ + Q h

        Only W_in ṡ of later layers and W_U ṡ are ever computed, because ṡ itself would be of shape (C, rows, width).
        """
        n_outputs, C = len(self.W_U), len(next(iter(factors.values()))[0])

        def inner(path: str, layer_input: Tensor) -> tuple[Tensor, Tensor]:
            """U (C, d_out, R), and the inner activations V_c x (C, rows, R)."""
            U, V = factors[path]
            return U, F.linear(layer_input, V.flatten(0, 1)).unflatten(-1, V.shape[:2]).transpose(0, 1)

        def times_s_dot(matrix: Tensor) -> Tensor:
            """matrix @ ṡ (C, rows, d), from the Q h and ḣ of all layers so far."""
            total = x.new_zeros(C, len(x), len(matrix))
            for W_out, Qh, h_dot in terms:
                if Qh is not None:
                    total.baddbmm_(Qh[1], (matrix @ Qh[0]).mT)
                total.view(-1, len(matrix)).addmm_(h_dot.flatten(0, 1), (matrix @ W_out).T)
            return total

        s, terms = F.linear(x, self.W_E), []  # for each layer: W_out, the factors of Q h, and ḣ
        for i, mlp in enumerate(self.mlps):
            path_in, path_out = f"mlps.{i}.W_in", f"mlps.{i}.W_out"
            W_in, W_out = weights.get(path_in, mlp.W_in.weight), weights.get(path_out, mlp.W_out.weight)
            h = F.relu(F.linear(s, W_in, mlp.W_in.bias))  # (rows, d_mlp)
            h_dot = times_s_dot(W_in)  # (C, rows, d_mlp)
            if path_in in factors:
                U, V_s = inner(path_in, s)
                h_dot.baddbmm_(V_s, U.mT)
            h_dot *= h > 0
            terms.append((W_out, inner(path_out, h) if path_out in factors else None, h_dot))
            s = s + F.linear(h, W_out)
        return torch.linalg.vector_norm(times_s_dot(self.W_U), dim=-1).T / n_outputs**0.5


@dataclass(frozen=True)
class ResidualMLPConfig(TrainedConfig):
    """A residual MLP and its training; defaults are APD's and SPD's with one layer (APD section D.2)."""

    kind = "residual_mlp"
    n_features: int = whole(100)
    """Number of input features."""
    d_resid: int = whole(1000)
    """Width of the residual stream."""
    d_mlp: int = whole(50)
    """Number of neurons in each layer."""
    n_layers: int = whole(1)
    """Number of MLP layers."""
    feature_probability: float = number(0.01, high=1.0, least=RAREST)
    """Probability p that a feature is on, and then uniform on [-1, 1]."""
    target_steps: int = whole(10_000)
    """Training steps."""
    target_batch_size: int = whole(2048)
    """Number of inputs per training step."""
    target_lr: float = number(3e-3, open=True, least=SLOWEST)
    """AdamW's learning rate at its highest."""
    target_schedule: str = choice("cosine", "constant", "cosine")
    """Course of the learning rate."""

    @property
    def summary(self) -> str:
        layers = "layer" if self.n_layers == 1 else "layers"
        return f"{self.n_features} features, {self.n_layers} {layers} of {self.d_mlp} neurons"

    @property
    def n_floats(self) -> int:
        weights = 2 * self.d_resid * (self.n_features + self.n_layers * self.d_mlp)
        return weights + 3 * self.target_batch_size * self.n_features

    @property
    def matrices(self) -> list[tuple[int, int, int]]:
        return [(self.n_layers, self.d_mlp, self.width), (self.n_layers, self.width, self.d_mlp)]

    @property
    def width(self) -> int:
        """Width of the residual stream once it has only the dimensions in use."""
        return min(self.d_resid, self.n_features + 2 * self.n_layers * self.d_mlp)

    @property
    def extent(self) -> Extent:
        n_parameters = 2 * self.n_layers * self.d_mlp * self.d_resid
        return Extent(self.n_features, self.feature_probability, self.n_features, n_parameters)

    def features(self) -> SparseFeatures:
        return SparseFeatures(self.n_features, self.feature_probability, low=-1.0)

    def _network(self, width: int | None = None) -> ResidualMLP:
        return ResidualMLP(
            n_features=self.n_features, d_resid=self.d_resid, d_mlp=self.d_mlp, n_layers=self.n_layers, width=width
        )

    def build(self) -> ResidualMLP:
        return self._network(self.width)

    def build_whole(self) -> ResidualMLP:
        return self._network()

    def reduce(self, target: nn.Module) -> nn.Module:
        """The network in the dimensions in use: see `ResidualMLP.narrow`."""
        return target.narrow()[0]

    def new(self, seed: int, device: str | torch.device = "cpu") -> ResidualMLP:
        """An untrained network: W_E has random columns of length one, and W_in and W_out begin as in `nn.Linear`."""
        model, draw = self._network(), generator(seed, "target_init")
        model.W_E.copy_(F.normalize(torch.randn(model.W_E.shape, generator=draw), dim=0))
        model.W_U.copy_(model.W_E.T)
        for mlp in model.mlps:
            for layer in (mlp.W_in, mlp.W_out):
                bound = layer.in_features**-0.5
                nn.init.uniform_(layer.weight, -bound, bound, generator=draw)
        return model.to(device)

    def loss(self, model: nn.Module, x: Float[Tensor, "rows n_features"]) -> Float[Tensor, ""]:
        """Mean squared error against x + ReLU(x), without computing all-zero rows, whose error is exactly zero."""
        rows = x[x.any(dim=1)] if x.device.type == "cpu" else x
        return F.mse_loss(model.by_products(rows), labels(rows), reduction="sum") / x.numel()

    @classmethod
    def sizes(cls, target: nn.Module) -> dict[str, Any] | None:
        if not isinstance(target, ResidualMLP) or target.mlps[0].W_in.bias is not None:
            return None
        return {
            "n_features": target.W_E.shape[1],
            "d_resid": target.d_resid,
            "d_mlp": target.d_mlp,
            "n_layers": len(target.mlps),
        }


def labels(x: Float[Tensor, "rows n_features"]) -> Float[Tensor, "rows n_features"]:
    """The labels that the network learns: x + ReLU(x)."""
    return x + F.relu(x)


def monosemantic_baseline(
    x: Float[Tensor, "rows n_features"], n_neurons: int, skip: Float[Tensor, "n_features n_features"] | None = None
) -> Float[Tensor, "rows n_features"]:
    """Output of a network whose neurons each compute ReLU of one feature exactly, and nothing else (APD section 3.2).

    `skip` is the matrix W_U W_E of the residual stream by itself; None means that it is exact, the identity.
    """
    passed_on = x if skip is None else F.linear(x, skip)
    activations = F.relu(x[:, :n_neurons])
    return passed_on + F.pad(activations, (0, x.shape[1] - activations.shape[1]))
