"""How many bits does it take to describe what a network did? Minimum description length (APD appendix A.2.1).

For each input, name the active components, and give one number for each rank of each of them (eqs. 11 to 13):

    L_MDL = Σ_c [c active] (α Σ_l rank(P_c,l) + log2 C) = log2(C) L_minimality + α L_simplicity

α is the number of bits of one such number. It decides which components are better described as a single one.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pd_helpers.course.kit.partitions import Groups, partitions


def minimality(active: Bool[Tensor, "inputs C"]) -> float:
    """Mean number of active components per input, the idealised minimality loss of eq. 13."""
    return active.double().sum(dim=1).mean().item()


def simplicity(active: Bool[Tensor, "inputs C"], ranks: Int[Tensor, " C"]) -> float:
    """Mean total rank of the active components per input, the idealised simplicity loss of eq. 13."""
    return (active.double() @ ranks.double()).mean().item()


def description_length(
    active: Bool[Tensor, "inputs C"], ranks: Int[Tensor, " C"], alpha: float, n_names: int | None = None
) -> float:
    """Mean number of bits per input (eq. 11). `n_names` is the C of log2 C, by default the number of components."""
    return math.log2(n_names or active.shape[1]) * minimality(active) + alpha * simplicity(active, ranks)


def merge(
    active: Bool[Tensor, "inputs C"], groups: Groups
) -> tuple[Bool[Tensor, "inputs groups"], Int[Tensor, " groups"]]:
    """Activity and ranks after merging rank-one components: a group is active if any of its members is."""
    group_active = torch.stack([active[:, list(group)].any(dim=1) for group in groups], dim=1)
    return group_active, torch.tensor([len(group) for group in groups])


def merge_threshold(p1: float, p2: float, p12: float, C: int) -> float:
    """The α below which merging two rank-one components saves bits, with log2 C held fixed.

    The components are active with probabilities p1 and p2, and both at once with probability p12. Separately they cost
    (p1 + p2)(α + log2 C) bits, and merged (p1 + p2 − p12)(2 α + log2 C). The threshold is infinite for two components
    that are always active together, and 0 for two that never are.
    """
    p_single = p1 + p2 - 2 * p12  # probability that exactly one of them is active
    if p12 <= 0:
        return 0.0
    return math.inf if p_single <= 0 else p12 * math.log2(C) / p_single


def lengths(active: Bool[Tensor, "inputs C"], all_groups: Sequence[Groups]) -> Float[Tensor, "groupings 2"]:
    """Minimality and simplicity of rank-one components, for each of several ways to merge them."""
    return torch.tensor(
        [[minimality(on), simplicity(on, ranks)] for on, ranks in (merge(active, g) for g in all_groups)],
        dtype=torch.float64,
    )


def shortest(active: Bool[Tensor, "inputs C"], alpha: float, n_names: int | None = None) -> Groups:
    """The way to merge rank-one components that needs the fewest bits; among equals, the one that merges least.

    It tries every partition, which is feasible for up to about eight components. `n_names` is the C of log2 C, by
    default the number of components.
    """
    candidates = partitions(active.shape[1])
    weights = torch.tensor([math.log2(n_names or active.shape[1]), alpha], dtype=torch.float64)
    bits = lengths(active, candidates) @ weights
    return candidates[int((bits <= bits.min() + 1e-9).int().argmax())]


def sum_of_powers(values: Float[Tensor, "*C R"], p: float) -> Float[Tensor, "*C"]:
    """Σ_r values_r^p over the values that are not zero up to rounding; as p → 0 this is their number."""
    zero = values.shape[-1] * torch.finfo(values.dtype).eps * values.amax(dim=-1, keepdim=True)
    return torch.where(values > zero, values.pow(p), 0.0).sum(dim=-1)


def schatten(P: Float[Tensor, "*C d_out d_in"], p: float) -> Float[Tensor, "*C"]:
    """Σ_m σ_m^p over the singular values σ, which is the exact ‖P‖_p^p of eq. 19; as p → 0 this is the rank."""
    return sum_of_powers(torch.linalg.svdvals(P), p)


def turned_factors(
    P: Float[Tensor, "d_out d_in"], degrees: float
) -> tuple[Float[Tensor, "d_out R"], Float[Tensor, "R d_in"]]:
    """Factors U, V with U V = P: scaled singular vectors, of which neighbouring pairs are rotated by this angle.

    The length ‖U_r‖ ‖V_r‖ of factor r is then a weighted mean of the two singular values; at 45° their plain mean.
    """
    u, sigma, v = torch.linalg.svd(P, full_matrices=False)
    Q, angle = torch.eye(len(sigma)).to(P), math.radians(degrees)
    rotation = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    for i in range(0, len(sigma) - 1, 2):
        Q[i : i + 2, i : i + 2] = torch.tensor(rotation, dtype=P.dtype)
    return u * sigma.sqrt() @ Q, Q.T @ (sigma.sqrt()[:, None] * v)
