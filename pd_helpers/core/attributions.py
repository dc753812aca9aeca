"""Which components did this input use? Attributions, and their batch top-k (APD section 2.2, eq. 8).

    A_c(x) = sqrt( mean over outputs o of ( Σ_{l,i,j} ∂f_o(x)/∂θ_{l,i,j} · P_{c,l,i,j} )² )

The inner sum is the derivative of output o as the parameters move in the direction P_c: one Jacobian–vector
product gives it for all outputs at once, where public code runs one backward pass per output.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import RLock
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .known_network import KnownNetwork
from .networks.batches import Inputs, arguments, mapped, n_inputs
from .networks.frozen import lock_of
from .networks.layers import kind_of
from .networks.passes import picked

Directions = dict[str, Float[Tensor, "C d_out d_in"]]
"""Layer → C changes of its weight matrix, which are C directions in parameter space."""
Factors = dict[str, tuple[Float[Tensor, "C d_out R"], Float[Tensor, "C R d_in"]]]
"""Layer → the same directions as factors U and V, with P_c = U_c V_c."""
Weights = dict[str, Float[Tensor, "d_out d_in"]]
"""Layer → weight matrix."""


LARGEST = 2**26
"""Numbers in the directions that are differentiated along at the same time; of larger ones, a few at a time."""


def tangents(
    model: nn.Module,
    x: Inputs,
    directions: Directions | Factors,
    weights: Weights | None = None,
    output: Callable[[Any], Tensor] | None = None,
) -> Float[Tensor, "C batch *d_output"]:
    """Derivative of every output along each direction P_c, taken at `weights`, by default the model's own.

    This is forward-mode differentiation, which works for any network: one Jacobian–vector product per direction.
    `output` picks what is compared from what the network returns. Directions may be given as factors (U, V).

    Raises ValueError if the network does something that has no forward-mode derivative.
    """
    layers = {path: kind_of(module)(module) for path in directions for module in [model.get_submodule(path)]}
    weights = weights or {path: layer.matrix for path, layer in layers.items()}
    names = {path: f"{path}.weight" if path else "weight" for path in weights}
    parameters = {names[path]: layers[path].as_weight(weight.detach()) for path, weight in weights.items()}
    buffers = dict(model.named_buffers())

    def f(parameters: dict[str, Tensor]) -> Tensor:  # a tied weight changes in all its uses
        positional, named = arguments(mapped(torch.clone, x))  # the network may write into its input
        own = parameters | {name: buffer.clone() for name, buffer in buffers.items()}  # or into its buffers
        return picked(torch.func.functional_call(model, own, positional, named), output)

    def along(direction: Mapping[str, Tensor | tuple[Tensor, Tensor]]) -> Tensor:
        P = {path: part if isinstance(part, Tensor) else part[0] @ part[1] for path, part in direction.items()}
        tangent = {names[path]: layers[path].as_weight(P[path]) for path in weights}
        return torch.func.jvp(f, (parameters,), (tangent,))[1]

    size = sum(weight.numel() for weight in weights.values())
    C = len(next(part if isinstance(part, Tensor) else part[0] for part in directions.values()))
    at_once = None if C * size <= LARGEST else max(1, LARGEST // size)
    with lock_of(model), differentiable_kernels():
        try:
            return torch.func.vmap(along, chunk_size=at_once)(directions)
        except RuntimeError:  # the network does something that vmap cannot, such as to count its calls
            each = [mapped(lambda part, c=c: part[c], directions) for c in range(C)]
            try:
                return torch.stack([along(direction) for direction in each])
            except RuntimeError as error:
                if not any(word in str(error) for word in ("forward AD", "functorch", "autograd.Function")):
                    raise
                raise ValueError(
                    "attributions are forward-mode derivatives, which torch does not have for something in this "
                    f"network ({str(error).splitlines()[0].partition(' because ')[0]}); SPD, which takes none, works"
                ) from error


_kernels = RLock()


@contextmanager
def differentiable_kernels() -> Iterator[None]:
    """Within the block attention is computed by kernels that can be differentiated forwards.

    Which kernels torch uses is the same for the whole process, so there is one thread at a time in such a block.
    """
    with _kernels, sdpa_kernel(SDPBackend.MATH):
        was_enabled = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(was_enabled)


def attributions(
    model: nn.Module,
    x: Inputs,
    directions: Directions | Factors,
    weights: Weights | None = None,
    output: Callable[[Any], Tensor] | None = None,
) -> Float[Tensor, "batch C"]:
    """A_c(x) of eq. 8, in units of the output: root mean square over outputs of the derivative along P_c.

    Directions may be given as factors (U, V) with P = U V. All numbers of an input's output count as outputs, those of
    all positions too, also where the network gives them as rows of their own, input by input. The closed form of a
    `KnownNetwork` is used where there is one; a test makes sure that both ways give the same numbers.

    Raises ValueError if the network's output is not so many numbers for each input.
    """
    if isinstance(model, KnownNetwork):
        factors = directions
        if any(isinstance(P, Tensor) for P in directions.values()):
            factors = {path: (P, torch.eye(P.shape[2]).to(P).expand(len(P), -1, -1)) for path, P in directions.items()}
        known = weights or {path: model.get_submodule(path).weight for path in directions}
        closed_form = model.closed_form_attributions(x, factors, known)
        if closed_form is not None:
            return closed_form
    along, n = tangents(model, x, directions, weights, output), n_inputs(x)  # (C, batch, …)
    if along.shape[1] % n:
        raise ValueError(
            f"attributions compare the numbers that each input gives, but for {n} inputs the network gives an output "
            f"of shape {tuple(along.shape[1:])}; one whose first dimension counts the inputs works"
        )
    along = along.reshape(len(along), n, -1)  # (C, inputs, numbers of an input's output)
    return torch.linalg.vector_norm(along, dim=-1).T / along.shape[-1] ** 0.5


def batch_top_k(A: Float[Tensor, "batch C"], n_active: int) -> Bool[Tensor, "batch C"]:
    """The active components: the `n_active` largest attributions of the whole batch (Bussmann et al. 2024).

    A component whose attribution is zero is never active, even if fewer than `n_active` attributions are above zero,
    as happens now and then in TMS 5-2.
    """
    flat = A.flatten()
    largest = flat.topk(min(n_active, len(flat)), sorted=False).indices
    active = torch.zeros_like(flat, dtype=torch.bool).index_fill(0, largest, True)
    return (active & (flat > 0)).view(A.shape)
