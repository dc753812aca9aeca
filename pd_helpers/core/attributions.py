"""Which components did this input use? Attributions, and their batch top-k (APD section 2.2, eq. 8).

    A_c(x) = sqrt( mean over outputs o of ( Σ_{l,i,j} ∂f_o(x)/∂θ_{l,i,j} · P_{c,l,i,j} )² )

The inner sum is the derivative of output o as the parameters move in the direction P_c: one Jacobian–vector
product gives it for all outputs at once, where public code runs one backward pass per output.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .known_network import KnownNetwork
from .target import lock_of

Directions = dict[str, Float[Tensor, "C d_out d_in"]]
"""Layer → C changes of its weight matrix, which are C directions in parameter space."""
Factors = dict[str, tuple[Float[Tensor, "C d_out R"], Float[Tensor, "C R d_in"]]]
"""Layer → the same directions as factors U and V, with P_c = U_c V_c."""
Weights = dict[str, Float[Tensor, "d_out d_in"]]
"""Layer → weight matrix."""


def tangents(
    model: nn.Module, x: Float[Tensor, "batch d"], directions: Directions, weights: Weights | None = None
) -> Float[Tensor, "C batch *d_output"]:
    """Derivative of every output along each direction P_c, taken at `weights`, by default the model's own.

    This is forward-mode differentiation, which works for any network: one Jacobian–vector product per direction.
    """
    weights = weights or {path: model.get_submodule(path).weight for path in directions}
    parameters = {f"{path}.weight": weight.detach() for path, weight in weights.items()}

    def f(parameters: dict[str, Tensor]) -> Tensor:  # a tied weight changes in all its uses
        return torch.func.functional_call(model, parameters, (x.clone(),))  # the network may write into its input

    def along(*direction: Tensor) -> Tensor:
        return torch.func.jvp(f, (parameters,), (dict(zip(parameters, direction, strict=True)),))[1]

    with lock_of(model):
        return torch.func.vmap(along)(*(directions[path] for path in weights))


def attributions(
    model: nn.Module, x: Float[Tensor, "batch d"], directions: Directions | Factors, weights: Weights | None = None
) -> Float[Tensor, "batch C"]:
    """A_c(x) of eq. 8, in units of the output: root mean square over outputs of the derivative along P_c.

    Directions may be given as factors (U, V) with P = U V. The closed form of a `KnownNetwork` is used where there is
    one; a test makes sure that both ways give the same numbers.
    """
    weights = weights or {path: model.get_submodule(path).weight for path in directions}
    factored = not any(isinstance(P, Tensor) for P in directions.values())
    if isinstance(model, KnownNetwork):
        factors = directions
        if not factored:
            factors = {path: (P, torch.eye(P.shape[2]).to(P).expand(len(P), -1, -1)) for path, P in directions.items()}
        closed_form = model.closed_form_attributions(x, factors, weights)
        if closed_form is not None:
            return closed_form
    if factored:
        directions = {path: U @ V for path, (U, V) in directions.items()}
    along = tangents(model, x, directions, weights)
    along = along.reshape(*along.shape[:2], -1)  # (C, batch, numbers of an input's output)
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
