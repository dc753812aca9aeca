"""Kinds of layers that can be decomposed: how each reads its rows with a matrix, and how it writes them.

    W (d_out, d_in)     the matrix that the layer's weight is
    rows                everything but the last dimension of what enters a layer: inputs, positions, patches
    read                x → M x for every row, (*rows, n), with any matrix M (n, d_in)
    write               y (*rows, d_out) → what the layer gives, its bias added

A layer computes write(read(x, W)), and under a mask m write(Σ_c m_c U_c read(x, V_c)).

    nn.Linear                  a row is a vector                                 W is the weight
    TransposedLinear           a row is a vector                                 W is the weight of another layer, transposed
    transformers' Conv1D       a row is a vector                                 W is the weight, transposed
    nn.Embedding               a row is a token, which stands for a one-hot vector    W is the weight, transposed
    nn.Conv1d, 2d and 3d       a row is a patch, all numbers that a kernel sees  W is the weight, flattened
"""  # noqa: E501

import sys
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class TransposedLinear(nn.Module):
    """y = Wᵀ x + b, where W (d_out, d_in) is another layer's parameter: the second use of a tied matrix.

    It is a module of its own, so that a decomposition can give the second use its own masks. Raises TypeError if the
    other layer is not an `nn.Linear`, or if its weight is computed and not a parameter.
    """

    def __init__(self, source: nn.Linear):
        super().__init__()
        if not isinstance(source, nn.Linear):
            raise TypeError(
                f"source must be an nn.Linear, but is {with_article(class_of(source))}; nn.Linear(3, 2) works"
            )
        if not isinstance(source.weight, nn.Parameter):
            raise TypeError(
                "source must have a parameter as its weight, but its weight is computed; nn.Linear(3, 2) works"
            )
        self.weight = source.weight
        self.bias = nn.Parameter(torch.zeros(source.in_features))

    def forward(self, x: Float[Tensor, "... d_out"]) -> Float[Tensor, "... d_in"]:
        return F.linear(x, self.weight.T, self.bias)


class Layer:
    """A module whose weight acts as a matrix W (d_out, d_in) on rows, as an `nn.Linear` does.

    Attributes: module; flipped, whether the module's weight is W transposed; reads_vectors, whether the rows are
    vectors (*rows, d_in) just as they enter the module.
    """

    flipped: ClassVar[bool] = False
    reads_vectors: ClassVar[bool] = True

    def __init__(self, module: nn.Module):
        self.module = module

    @property
    def matrix(self) -> Float[Tensor, "d_out d_in"]:
        """W, a view of the module's weight."""
        return self.module.weight.T if self.flipped else self.module.weight

    def as_weight(self, matrices: Float[Tensor, "*n d_out d_in"]) -> Tensor:
        """Matrices of W's shape in the shape of the module's weight."""
        return matrices.mT if self.flipped else matrices

    def read(self, x: Tensor, matrix: Float[Tensor, "n d_in"]) -> Float[Tensor, "*rows n"]:
        """What a matrix reads off every row of the input."""
        return F.linear(x, matrix)

    def write(self, y: Float[Tensor, "*rows d_out"]) -> Tensor:
        """What the module gives where its matrix has computed y."""
        return y if self.module.bias is None else y + self.module.bias.to(y.dtype)  # autocast may have changed y's

    def n_rows(self, x: Tensor) -> int:
        """About how many rows there are in an input."""
        return x.numel() // x.shape[-1] if x.ndim and x.shape[-1] else 1

    def check(self, path: str, x: Any, dtype: torch.dtype) -> None:
        """Raise ValueError for an input that the layer at this path cannot read."""
        if x.shape[-1] != (width := self.matrix.shape[1]):
            raise ValueError(f"layer {path!r} takes inputs of width {width}, but got {x.shape[-1]}")
        _check_type(path, x, dtype)


class FlippedLayer(Layer):
    """The same with a weight (d_in, d_out): `TransposedLinear`, and the Conv1D of Hugging Face's GPT-2."""

    flipped = True


class EmbeddingLayer(FlippedLayer):
    """A row is a token, which stands for the one-hot vector that the matrix W (d_out, n_tokens) would read."""

    reads_vectors = False

    def read(self, x: Tensor, matrix: Float[Tensor, "n n_tokens"]) -> Float[Tensor, "*rows n"]:
        """The token's column of the matrix."""
        return F.embedding(x, matrix.T)

    def write(self, y: Float[Tensor, "*rows d_out"]) -> Tensor:
        """y itself."""
        return y

    def n_rows(self, x: Tensor) -> int:
        """The number of tokens."""
        return x.numel()

    def check(self, path: str, x: Any, dtype: torch.dtype) -> None:
        """Raise ValueError for numbers that are not tokens."""
        if x.is_floating_point() or x.dtype == torch.bool:
            raise ValueError(f"layer {path!r} takes whole numbers, but got {_name(x.dtype)}; x.long() works")


class ConvolutionLayer(Layer):
    """A row is a patch (channels · kernel): (*places, d_in), of which no array is ever made.

    Inputs and outputs lie in memory with channels before places: on the CPU, torch 2.13's backward pass of a strided
    convolution of 1 × 1 writes beyond its memory where channels come last.
    """

    reads_vectors = False

    def __init__(self, module: nn.Module):
        super().__init__(module)
        self.channel = -len(module.kernel_size) - 1  # the dimension of channels in inputs and outputs

    @property
    def matrix(self) -> Float[Tensor, "d_out d_in"]:
        """W, a view of the module's weight (d_out, channels, *kernel)."""
        return self.module.weight.flatten(1)

    def as_weight(self, matrices: Float[Tensor, "*n d_out d_in"]) -> Tensor:
        """Matrices of W's shape in the shape of the module's weight."""
        return matrices.unflatten(-1, self.module.weight.shape[1:])

    def read(self, x: Tensor, matrix: Float[Tensor, "n d_in"]) -> Float[Tensor, "*places n"]:
        """A convolution with the rows of the matrix as its filters."""
        filters = matrix.unflatten(1, self.module.weight.shape[1:])
        return self.module._conv_forward(in_order(x), filters, None).movedim(self.channel, -1)

    def write(self, y: Float[Tensor, "*places d_out"]) -> Tensor:
        """The outputs of all places, with channels where torch has them."""
        return in_order(super().write(y).movedim(-1, self.channel))

    def n_rows(self, x: Tensor) -> int:
        """About how many patches there are: the number of places where one could begin."""
        return x.numel() // self.module.in_channels

    def check(self, path: str, x: Any, dtype: torch.dtype) -> None:
        """Raise ValueError for an input of another type; torch checks its shape."""
        _check_type(path, x, dtype)


def in_order(x: Tensor) -> Tensor:
    """The tensor with its numbers in memory in the order of its dimensions.

    `x.contiguous()` may leave them in another order where a dimension has length one.
    """
    in_order = x.stride() == torch.empty(x.shape, device="meta").stride()
    return x if in_order else x.clone(memory_format=torch.contiguous_format)


def _check_type(path: str, x: Tensor, dtype: torch.dtype) -> None:
    if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(
            f"layer {path!r} computes in {_name(dtype)}, but got {_name(x.dtype)}; inputs of its own type work"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


KINDS: dict[Callable, type[Layer]] = {
    nn.Linear.forward: Layer,
    TransposedLinear.forward: FlippedLayer,
    nn.Embedding.forward: EmbeddingLayer,
    nn.Conv1d.forward: ConvolutionLayer,
    nn.Conv2d.forward: ConvolutionLayer,
    nn.Conv3d.forward: ConvolutionLayer,
}
"""What a module computes → its kind."""
CONVOLUTIONS = (nn.Conv1d._conv_forward, nn.Conv2d._conv_forward, nn.Conv3d._conv_forward)
"""How torch's convolutions compute, which a class below them may change."""


def kind_of(module: nn.Module) -> type[Layer] | None:
    """The kind of a layer, known by what its forward pass computes; None for all other modules."""
    computes = None if "forward" in vars(module) else getattr(type(module), "forward", None)  # compiled ones have none
    if getattr(type(module), "_conv_forward", None) not in (None, *CONVOLUTIONS):
        return None
    transformers = sys.modules.get("transformers.pytorch_utils")  # which nobody needs who brings no such network
    if transformers is not None and computes is transformers.Conv1D.forward:
        return FlippedLayer
    return KINDS.get(computes)


MODULES = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Classes of torch that can be decomposed, unless a class below them computes something else."""
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
PACKED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def refusal(path: str, module: nn.Module, example: str = "nn.Linear(3, 2)") -> str | None:
    """Why this module cannot be decomposed, in one sentence that says what would work; None if it can be."""
    what = f"layer {path!r} is {with_article(class_of(module))}"
    if isinstance(module, RECURRENT):
        return f"{what}, which uses its weights at every step; a network with an nn.Linear for each step works"
    name = f"{type(module).__module__}.{type(module).__name__}".lower()
    if kind_of(module) is None and ("quant" in name or "bitsandbytes" in name):
        return f"{what}, whose weight is quantised; the network before it was quantised works"
    if isinstance(module, PACKED):
        return f"{what}, which packs several matrices into one; pdh.unpack(network) gives a network of separate ones"
    if kind_of(module) is None:
        if isinstance(module, MODULES):
            return (
                f"{what} with a forward of its own, which components would leave out; merge what it adds into the "
                "weight of a plain layer first"
            )
        return f"{what}, not a layer that can be decomposed; {example} works"
    if getattr(module, "groups", 1) != 1:
        return f"{what} with groups={module.groups}, each of which has a matrix of its own; groups=1 works"
    if getattr(module, "max_norm", None) is not None:
        return f"{what} with max_norm={module.max_norm:g}, which rewrites its weight in every pass; max_norm=None works"
    if module._parameters.get("weight") is None:
        return (
            f"the weight of layer {path!r} is no parameter, but computed anew in every pass; make it a parameter "
            "first, as torch.nn.utils.remove_weight_norm, remove_spectral_norm and prune.remove do"
        )
    return None


def class_of(module: nn.Module) -> str:
    """The name of a module's class; with the place where it is defined, if torch has another class of that name."""
    kind = type(module)
    return f"{kind.__module__}.{kind.__name__}" if getattr(nn, kind.__name__, kind) is not kind else kind.__name__


def with_article(name: str) -> str:
    """The name of a class after "a" or "an"."""
    vowels = "AEFHILMNORSX" if name[:2].isupper() else "AEIO"  # of an abbreviation, every letter is said
    return f"{'an' if name[:1] in vowels else 'a'} {name}"
