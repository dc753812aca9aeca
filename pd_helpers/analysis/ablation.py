"""How does the output change when components are really removed? Attributions estimate this truth (APD appendix A.1).

    first order   J(θ) P_c                         the derivative at the weights themselves: `attributions.tangents`
    integrated    ∫ J(θ(t)) P_c dt                 the derivative averaged on the straight line from a start to θ
    full          f(θ) − f(θ − P_c)                one component removed
    curve         f(Σ_c γ_c(t) P_c), γ_c: 1 → s_c  all inactive components faded together (eq. 9)

All effects are signed, with one number for each component, input and output; `root_mean_square` turns them into the
sizes of eq. 8.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pd_helpers.core.attributions import Directions, Weights, tangents


def root_mean_square(effects: Float[Tensor, "C batch *d_output"]) -> Float[Tensor, "batch C"]:
    """Root mean square of effects over outputs, as in eq. 8; for first-order effects these are the attributions."""
    return effects.reshape(*effects.shape[:2], -1).square().mean(dim=-1).sqrt().T


def ablated(
    model: nn.Module, x: Float[Tensor, "batch d"], directions: Directions, weights: Weights | None = None
) -> Float[Tensor, "C batch d_output"]:
    """f(θ) − f(θ − P_c): what each component's removal takes away from every output.

    θ is `weights`, by default the model's own.
    """
    weights = weights or _own_weights(model, directions)

    def output_without(*P_c: Tensor) -> Tensor:
        return _output(model, {path: W - P for (path, W), P in zip(weights.items(), P_c, strict=True)}, x)

    return _output(model, weights, x) - torch.func.vmap(output_without)(*(directions[path] for path in weights))


def integrated(
    model: nn.Module,
    x: Float[Tensor, "batch d"],
    directions: Directions,
    start: Weights,
    weights: Weights | None = None,
    kinks: Sequence[float] = (),
    n_points: int = 8,
) -> Float[Tensor, "C batch d_output"]:
    """∫₀¹ J(θ(t)) P_c dt with θ(t) = start + t (θ − start): integrated gradients with respect to parameters.

    Sundararajan et al. (2017) introduced them for inputs. If the P_c add up to θ − start, the effects add up to
    f(θ) − f(start). The integral is taken by Gauss–Legendre quadrature with `n_points` between neighbouring `kinks`,
    the values of t at which the derivative jumps; it is exact for polynomials of degree 2 n_points − 1 between them.
    """
    weights = weights or _own_weights(model, directions)
    nodes, shares = np.polynomial.legendre.leggauss(n_points)
    ends = [0.0, *sorted(t for t in kinks if 0 < t < 1), 1.0]
    total = 0.0
    for low, high in pairwise(ends):
        for node, share in zip(nodes.tolist(), shares.tolist(), strict=True):
            t = low + (high - low) * (node + 1) / 2
            theta_t = {path: start[path] + t * (W - start[path]) for path, W in weights.items()}
            total = total + share * (high - low) / 2 * tangents(model, x, directions, theta_t)
    return total


def ablation_curve(
    model: nn.Module,
    x: Float[Tensor, "batch d"],
    directions: Directions,
    active: Float[Tensor, "batch C"],
    t: Float[Tensor, " points"] | Float[Tensor, "points C"],
) -> Float[Tensor, "points batch d_output"]:
    """Outputs while all inactive components fade together, γ_c(t) = 1 − t (1 − s_c), which is a straight line in eq. 9.

    `active` holds s_c(x), the masks at t = 1: 0 and 1, or any numbers between. At t = 0 all components are on. With a t
    of shape (points, C) every component fades at its own pace, so that any other curve can be followed.
    """
    return torch.stack([masked(model, x, directions, 1 - point * (1 - active)) for point in t])


def masked(
    model: nn.Module, x: Float[Tensor, "batch d"], directions: Directions, masks: Float[Tensor, "batch C"]
) -> Float[Tensor, "batch d_output"]:
    """f(x | Σ_c m_c(x) P_c), where every input has weights of its own; with masks of 0 and 1 this is eq. 7."""
    sums = {path: torch.einsum("bc,cij->bij", masks.to(P.dtype), P) for path, P in directions.items()}

    def output_of_row(row: Tensor, *weights: Tensor) -> Tensor:
        return _output(model, dict(zip(sums, weights, strict=True)), row.unsqueeze(0))[0]

    return torch.func.vmap(output_of_row)(x, *sums.values())


def pathological(experts: Directions, weights: Weights) -> Directions:
    """Eq. 10: P_c = P'_c + (θ* − Σ P') / C, which adds up to θ* whatever the experts P' are."""
    return {path: P + (weights[path] - P.sum(dim=0)) / len(P) for path, P in experts.items()}


def _own_weights(model: nn.Module, directions: Directions) -> Weights:
    return {path: model.get_submodule(path).weight.detach() for path in directions}


def _output(model: nn.Module, weights: Weights, x: Tensor) -> Tensor:
    return torch.func.functional_call(model, {f"{path}.weight": W for path, W in weights.items()}, (x.clone(),))
