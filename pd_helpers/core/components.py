"""Components of any network's layers, and forward passes with some of them masked out.

A weight matrix W (d_out, d_in) becomes a sum of C components of rank at most R,

    W ≈ Σ_c P_c,    P_c = U_c V_c,    U_c (d_out, R),  V_c (R, d_in),

where V reads the layer's input and U writes its output. (APD eq. 20 and the public APD code call the reading
factor U or A and the writing factor V or B; here the names are the other way round, as in SPD.) R = 1 gives
SPD's rank-one subcomponents. Biases are not decomposed: they are one component that is always active.

A tied matrix is one set of components with two uses, `embed` and `unembed` for the toy model. A component of APD
is a vector in parameter space, so one mask switches it off in both uses at once; SPD decomposes each use of a
matrix as a layer of its own, so that each use has its own importances and masks, while U and V stay shared.
"""

import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from . import losses
from .known_network import KnownNetwork
from .machine.memory import check_sizes
from .machine.precision import autocast, under_autocast
from .networks.batches import Inputs, checked_rows, n_inputs, select
from .networks.frozen import frozen
from .networks.layers import EmbeddingLayer, Layer, kind_of
from .networks.layers import TransposedLinear as TransposedLinear
from .networks.passes import Compute, Forward, Passes
from .networks.rows import Rows, spread
from .networks.uses import an_example, check_layers, find_uses
from .shortcuts.active_pairs import Pairs, worthwhile
from .shortcuts.empty_rows import Batch, EmptyRows

Masks = Mapping[str, Tensor] | Tensor | None
"""Use → mask; or one mask for every use; or None, where all components are on.

A mask is (*rows, C), one number for every row that enters the layer and every component; or (inputs, C), one for each
input, that holds for all of its rows. Of a single Boolean mask only the True entries are computed. A mask with a column
more, (*rows, C + 1), masks in the last one Δ = W - Σ_c P_c, what the components leave of the matrix (VPD).
"""

Read = Callable[[Tensor, Tensor], Tensor]
"""What a matrix (n, d) reads off every row of x (*rows, d): (*rows, n); see `networks.layers`."""


class Components(nn.Module):
    """C components P_c = U_c V_c of one weight matrix W (d_out, d_in).

    Attributes: U (C, d_out, R), which writes the layer's output; V (C, R, d_in), which reads its input.
    """

    def __init__(self, *, C: int, d_out: int, d_in: int, rank: int):
        super().__init__()
        self.C, self.d_out, self.d_in, self.rank = C, d_out, d_in, rank
        self.U = nn.Parameter(torch.zeros(C, d_out, rank))
        self.V = nn.Parameter(torch.zeros(C, rank, d_in))

    @property
    def P(self) -> Float[Tensor, "C d_out d_in"]:
        """Every component as a matrix, P_c = U_c V_c."""
        return self.U @ self.V

    @property
    def weight(self) -> Float[Tensor, "d_out d_in"]:
        """The sum of all components, computed without building any single one."""
        return self.U.transpose(0, 1).flatten(1) @ self.V.flatten(0, 1)

    @torch.no_grad()
    def assign_(self, P: Float[Tensor, "C d_out d_in"]) -> "Components":
        """Make these matrices the components: U and V become their singular vectors, times the root of the values.

        Raises ValueError if a matrix has a higher rank than the factors allow.
        """
        U, S, V = torch.linalg.svd(P.to(self.U), full_matrices=False)  # S (C, min(d_out, d_in)), descending
        n = min(self.rank, S.shape[1])
        if (rank := int((1e-5 * S.max() < S).sum(dim=1).max())) > n:
            raise ValueError(f"P must have rank at most {self.rank}, the rank of U and V, but has rank {rank}")
        root = S[:, :n].sqrt()
        self.U.zero_()
        self.V.zero_()
        self.U[..., :n] = U[..., :n] * root.unsqueeze(1)
        self.V[:, :n] = root.unsqueeze(2) * V[:, :n]
        return self

    def inner(self, x: Tensor, transposed: bool = False, read: Read = F.linear) -> Float[Tensor, "*rows C R"]:
        """What each component reads off the layer's input: V_c x, or U_cᵀ x if transposed; see `forward`."""
        reads = self.U.mT if transposed else self.V  # (C, R, d)
        return read(x, reads.reshape(-1, reads.shape[-1])).unflatten(-1, (self.C, self.rank))

    def forward(
        self,
        x: Tensor,
        mask: Float[Tensor, "*_ C"] | Pairs | None = None,
        transposed: bool = False,
        inner: Float[Tensor, "*rows C R"] | None = None,
        read: Read = F.linear,
    ) -> Float[Tensor, "*_ d2"]:
        """Σ_c m_c P_c x, or Σ_c m_c P_cᵀ x where the matrix is used transposed; without a mask all m_c are 1.

        x is (*rows, d), or whatever else `read`, which says how a layer reads its rows, takes.
        The mask scales the inner activations (*rows, C, R), so nothing of size (*rows, C, d_out) is ever built. Inner
        activations that are known already can be passed as `inner`. A mask given as active pairs is computed for
        those pairs alone, each with the factors of its own component.

        Raises ValueError for a mask of a shape other than those that `Masks` says.
        """
        if mask is None:
            return read(x, self.weight.T if transposed else self.weight)
        if isinstance(mask, Pairs):
            reads, writes = (self.U, self.V) if transposed else (self.V.mT, self.U.mT)
            return mask.add(mask.gather(x) @ mask.of(reads) @ mask.of(writes))
        inner = self.inner(x, transposed, read) if inner is None else inner
        if mask.shape[-1:] != (self.C,):
            raise ValueError(
                f"a mask must have shape {tuple(inner.shape[:-1])}, one value per row and component, but has "
                f"{tuple(mask.shape)}"
            )
        writes = self.V if transposed else self.U.mT  # (C, R, d2)
        return (inner * spread(mask, inner.shape[:-2]).unsqueeze(-1)).flatten(-2) @ writes.flatten(0, 1)


class ComponentModel(nn.Module):
    """A frozen network together with the components of some of its layers; `decompose` makes one.

    Attributes: target, the copy that is decomposed (see `networks.frozen`); layers (path → Components); uses (path →
    Use, for every place where a decomposed matrix acts); kinds (path → Layer, how each use reads and writes).
    """

    def __init__(
        self,
        target: nn.Module,
        C: Mapping[str, int],
        rank: int | None,
        output: Callable[[Any], Tensor] | None = None,
    ):
        super().__init__()
        self.target = target = frozen(target)
        check_layers(target, C)
        places = find_uses(target, C)
        self.uses = {path: use for path, (use, _) in places.items()}
        self.kinds: dict[str, Layer] = {path: kind for path, (_, kind) in places.items()}
        self._passes = Passes(target, self.kinds, output)
        self._layers = nn.ModuleList()
        for path, n in C.items():
            weight = self.kinds[path].matrix
            (d_out, d_in), full = weight.shape, min(weight.shape) + 1
            layer = Components(C=n, d_out=d_out, d_in=d_in, rank=full if rank is None else rank)
            self._layers.append(layer.to(weight))  # device and dtype
        self.layers = dict(zip(C, self._layers, strict=True))
        self.rows_per_input = 1
        """About how many rows one input has in a layer at most, such as positions; known after the first pass."""
        self._empty_rows = EmptyRows(self.entering, self.has_independent_rows)
        self.autocast = False  # whether passes run in mixed precision; see `precision`
        self._rows = Rows(self._precise_forward)
        self._learns = False  # whether gradients reach the components; found out in the first pass that records them

    def train(self, mode: bool = True) -> "ComponentModel":
        """Training mode, or evaluation mode, of everything but the target, which stays in evaluation mode."""
        super().train(mode)
        self.target.eval()
        return self

    @property
    def targets(self) -> dict[str, Float[Tensor, "d_out d_in"]]:
        """Layer → the target's weight matrix."""
        return {path: self.kinds[path].matrix for path in self.layers}

    @property
    def output(self) -> Callable[[Any], Tensor] | None:
        """What is compared, from what the network returns; None for a network that returns one tensor."""
        return self._passes.output

    @property
    def n_parameters(self) -> dict[str, int]:
        """Layer → the number of parameters that its matrix stands for in means over parameters."""
        if isinstance(self.target, KnownNetwork):
            return {path: self.target.parameter_count(path) for path in self.layers}
        return {path: weight.numel() for path, weight in self.targets.items()}

    def faithfulness(self) -> Float[Tensor, ""]:
        """The faithfulness loss; see `losses.faithfulness`."""
        n_uses = Counter(use.layer for use in self.uses.values())
        return losses.faithfulness(self.targets, self.sums, n_uses, self.n_parameters)

    @property
    def hidden(self) -> list[str]:
        """Uses whose entering activations APD's hidden reconstruction compares: all, unless the target names some.

        Tokens, which enter an embedding, are no activations.
        """
        names = self.target.hidden_layers if isinstance(self.target, KnownNetwork) else None
        numeric = [path for path, kind in self.kinds.items() if not isinstance(kind, EmbeddingLayer)]
        return [path for path in (numeric if names is None else names) if path in numeric]

    @property
    def sums(self) -> dict[str, Float[Tensor, "d_out d_in"]]:
        """Layer → the sum of its components."""
        return {path: components.weight for path, components in self.layers.items()}

    @property
    def factors(self) -> list[nn.Parameter]:
        """U and V of the first layer, then of the second, and so on."""
        return list(self._layers.parameters())

    def target_forward(self, x: Inputs) -> Forward:
        """The target's own output and the activations entering each use; no gradients."""
        with torch.no_grad():
            forward = self._run(x, {}, {})
        rows = max(self.kinds[use].n_rows(a) for use, a in forward.inputs.items())
        self.rows_per_input = max(1, rows // max(1, n_inputs(x)))
        return forward

    def _precise_forward(self, x: Inputs) -> Forward:
        """The same without autocast, for comparisons that rounding must not decide."""
        with autocast(self, enabled=False):
            return self.target_forward(x)

    def entering(self, x: Inputs) -> dict[str, Tensor]:
        """Use → the activation (*rows, d_in) that enters it in the target's own forward pass; no gradients."""
        return self.target_forward(x).inputs

    @torch.no_grad()
    def rows(self, x: Inputs) -> dict[str, tuple[int, ...]]:
        """Use → the shape of its rows: all dimensions but the last of what its components read."""
        return {path: tuple(h.shape[:-2]) for path, h in self.inner(self.entering(x)).items()}

    @under_autocast
    def inner(self, inputs: Mapping[str, Tensor]) -> dict[str, Float[Tensor, "*_ C R"]]:
        """Use → what its components read off the activations that enter it, (*rows, C, R); see `Components.inner`."""
        return {
            path: self.layers[layer].inner(inputs[path], transposed, self.kinds[path].read)
            for path, (layer, transposed) in self.uses.items()
        }

    def forward(self, x: Inputs, masks: Masks = None, inner: Mapping[str, Tensor] | None = None) -> Forward:
        """The network with its decomposed matrices replaced by masked sums of components.

        `masks` may name a few uses only: the others then keep the target's own weights, as a layerwise reconstruction
        requires. `inner` holds the inner activations of the target's own forward pass, if they are known: the first
        masked use that is reached has exactly those, so they need not be computed again.

        Raises ValueError if `masks` names a use that is not decomposed, if the forward pass does not call a decomposed
        layer exactly once, or if an activation of the wrong width enters a layer.
        """
        masks = masks if isinstance(masks, Mapping) else dict.fromkeys(self.uses, masks)
        for path in masks:
            if path not in self.uses:
                raise ValueError(f"masks names {path!r}, which is not decomposed; {', '.join(self.uses)} are")
        result = self._run(x, masks, inner or {})
        if masks and not self._learns and torch.is_grad_enabled() and all(f.requires_grad for f in self.factors):
            self._learns = result.output.requires_grad
            if not self._learns:
                remedy = "leave torch.no_grad and detach out of its forward pass"
                raise ValueError(f"the network's output has no gradients, so nothing could be trained; {remedy}")
        return result

    @under_autocast
    def _run(self, x: Inputs, masks: Mapping[str, Tensor | None], inner: Mapping[str, Tensor]) -> Forward:
        pairs: dict[int, Pairs] = {}  # of Boolean masks

        def compute(path: str) -> Compute:
            name, transposed = self.uses[path]
            layer, kind, mask, W = self.layers[name], self.kinds[path], masks[path], self.targets[name]
            delta = None if mask is None or mask.shape[-1] != layer.C + 1 else mask[..., layer.C :]

            def masked(a: Tensor, first: bool) -> Tensor:
                m = mask if delta is None else mask[..., : layer.C] - delta  # Σ m_c P_c + m_Δ (W - Σ P_c)
                if m is not None and m.dtype == torch.bool:
                    of_rows = kind.reads_vectors and a.ndim == m.ndim == 2 and len(a) == len(m)
                    if of_rows and worthwhile(m):
                        m = pairs.setdefault(id(m), pairs.get(id(m)) or Pairs(m))
                    else:
                        m = m.to(layer.U.dtype)
                y = layer(a, m, transposed, inner.get(path) if first else None, kind.read)
                if delta is not None:
                    whole = kind.read(a, W.T if transposed else W)
                    y = y + spread(delta, whole.shape[:-1]) * whole
                return kind.write(y)

            return masked

        dtypes = {path: self.layers[use.layer].U.dtype for path, use in self.uses.items()}
        return self._passes.run(x, {path: compute(path) for path in masks}, dtypes)

    @property
    def width(self) -> int:
        """The largest number C R of inner activations that a row has in any layer, with which its cost grows."""
        return max(layer.C * layer.rank for layer in self.layers.values())

    def merge_empty_rows(self, x: Inputs) -> Batch:
        """The rows of a batch that must be computed; see `shortcuts.empty_rows`."""
        return self._empty_rows.merge(checked_rows(x, "a batch"))

    def chunks(self, x: Inputs, n_rows: int) -> tuple[Inputs, ...]:
        """The inputs, about `n_rows` rows at a time; all at once if the target computes an input from others too."""
        if n_inputs(checked_rows(x)) > 2:
            self.target_forward(select(x, slice(2)))  # so that it is known how many rows an input has
        return self._rows.chunks(x, max(1, n_rows // self.rows_per_input))

    def joined(self, tables: list[dict[str, Tensor]], chunks: tuple[Inputs, ...]) -> dict[str, Tensor]:
        """Tables of chunks as tables of all inputs: use → (*rows, …), with rows that all inputs share only once."""
        return self._rows.joined(tables, chunks[0])

    def has_independent_rows(self, x: Inputs) -> bool:
        """Whether the target computes each input from that one alone, as it does for the first batch with others."""
        return self._rows.are_independent(x)

    def masks_of_inputs(
        self, mask: Float[Tensor, "inputs C"] | Bool[Tensor, "inputs C"], x: Inputs
    ) -> dict[str, Tensor]:
        """Use → a mask that holds for all rows that each of these inputs has there, as `forward` takes it.

        Raises ValueError if it cannot be told which rows belong to which input.
        """
        if isinstance(self.target, KnownNetwork):  # whose rows are the inputs
            return dict.fromkeys(self.uses, mask)
        return self._rows.masks(mask, x)


def decompose(
    model: nn.Module,
    C: Mapping[str, int],
    *,
    rank: int | None = None,
    std: float | None = None,
    generator: Generator | None = None,
    output: Callable[[Any], Tensor] | None = None,
) -> ComponentModel:
    """Start a decomposition of some of a network's layers into C components each.

    Args:
        model: any network, which stays as it is: a frozen copy of it in evaluation mode is decomposed.
        C: path of a layer, as in `model.get_submodule(path)` → number of components.
        rank: largest rank R of a component; None means no limit, min(d_out, d_in) + 1 as in public APD code.
        std: standard deviation of the initial factors, which are normally distributed; None means 1/√C for U and
            1/√d_out for V.
        generator: source of the initial factors; None means a new generator with seed 0.
        output: what is compared, from what the network returns, as `lambda out: out.logits`; None for a network that
            returns one tensor.

    >>> components = decompose(model, {"mlp.in": 100, "mlp.out": 50}, rank=1)
    >>> components(x, masks={"mlp.in": mask}).output

    Raises:
        TypeError: if a path is not a layer of a kind that can be decomposed (`networks.layers`), or C or rank is not a
            whole number.
        ValueError: if a path is unknown, C or rank is below 1 or too large for the memory, or weights are not finite.
    """
    model = frozen(model)
    if not isinstance(C, Mapping):
        raise TypeError(f"C must map paths to numbers of components, but is {C!r}; {an_example(model)} works")
    if not C:
        raise ValueError(f"C names no layer; {an_example(model)} works")
    C = {path: _whole(f"C[{path!r}]", n) for path, n in C.items()}
    rank = None if rank is None else _whole("rank", rank)
    if std is not None and not (isinstance(std, int | float) and 0 < std < math.inf):
        raise ValueError(f"std must be a finite number above 0, but is {std!r}; 0.1 works")
    if generator is not None and not isinstance(generator, Generator):
        raise TypeError(f"generator must be a torch.Generator, but is {generator!r}; torch.Generator() works")
    check_layers(model, C)
    for path, n in C.items():
        module = model.get_submodule(path)
        d_out, d_in = kind_of(module)(module).matrix.shape
        numbers_of_each = (min(d_out, d_in) + 1 if rank is None else rank) * (d_out + d_in)
        check_sizes(lambda C, each=numbers_of_each: C * each, C=n)
    components = ComponentModel(model, C, rank, output)
    for layer in components.layers.values():
        generator = generator or torch.Generator(layer.U.device).manual_seed(0)
        for factor, default_std in ((layer.U, layer.C**-0.5), (layer.V, layer.d_out**-0.5)):
            with torch.no_grad():
                draw = torch.randn(factor.shape, generator=generator, device=generator.device)
                factor.copy_(draw * (default_std if std is None else std))
    return components


def _whole(name: str, value: Any) -> int:
    """The value as an int; TypeError unless it is a whole number, and ValueError unless it is at least 1."""
    try:
        whole = operator.index(value)
    except TypeError:
        whole = None
    if whole is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, but is {value!r}; 20 works")
    if whole < 1:
        raise ValueError(f"{name} must be at least 1, but is {whole}; 20 works")
    return whole
