"""How many bits does a decomposition take to say what a network did? Minimum description length (APD appendix A.2.1).

Per input, name the active components and give each rank of theirs a number (eqs. 11 to 13):

    L_MDL = Σ_c [c active] (α Σ_l rank(P_c,l) + log2 C) = log2(C) L_minimality + α L_simplicity

α is the number of bits for one attribution. It decides which components are better described as one.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Groups = tuple[tuple[int, ...], ...]
"""Which components are taken together: a partition of 0 … n − 1."""


def minimality(active: Bool[Tensor, "inputs C"]) -> float:
    """Mean number of active components per input, the idealised loss of eq. 13."""
    return active.double().sum(dim=1).mean().item()


def simplicity(active: Bool[Tensor, "inputs C"], ranks: Int[Tensor, " C"]) -> float:
    """Mean total rank of the active components per input, the idealised loss of eq. 13."""
    return (active.double() @ ranks.double()).mean().item()


def description_length(
    active: Bool[Tensor, "inputs C"], ranks: Int[Tensor, " C"], alpha: float, n_names: int | None = None
) -> float:
    """Mean bits per input, eq. 11. `n_names` is the C of log2 C where it is not the number of components."""
    return math.log2(n_names or active.shape[1]) * minimality(active) + alpha * simplicity(active, ranks)


def merge(
    active: Bool[Tensor, "inputs C"], groups: Groups
) -> tuple[Bool[Tensor, "inputs groups"], Int[Tensor, " groups"]]:
    """Activity and ranks after merging rank-one components: a group is active where any of its members is."""
    together = torch.stack([active[:, list(group)].any(dim=1) for group in groups], dim=1)
    return together, torch.tensor([len(group) for group in groups])


def merge_threshold(p1: float, p2: float, p12: float, C: int) -> float:
    """The α below which two rank-one components are cheaper merged, with log2 C held fixed.

    Active with probabilities p1 and p2, and together with p12. Separately they cost (p1 + p2)(α + log2 C), merged
    (p1 + p2 − p12)(2 α + log2 C). Infinite for a pair that is always together, 0 for one that never is.
    """
    apart = p1 + p2 - 2 * p12
    if p12 <= 0:
        return 0.0
    return math.inf if apart <= 0 else p12 * math.log2(C) / apart


@cache
def partitions(n: int) -> tuple[Groups, ...]:
    """Every way to put n components into groups, from all apart to all together; 203 for six."""

    def of(first: int) -> Iterator[list[list[int]]]:
        if first == n:
            yield []
            return
        for rest in of(first + 1):
            yield [[first], *rest]
            for i in range(len(rest)):
                yield [*rest[:i], [first, *rest[i]], *rest[i + 1 :]]

    found = [tuple(sorted(tuple(sorted(group)) for group in groups)) for groups in of(0)]
    return tuple(sorted(found, key=lambda groups: (-len(groups), groups)))


def lengths(active: Bool[Tensor, "inputs C"], all_groups: Sequence[Groups]) -> Float[Tensor, "groupings 2"]:
    """Minimality and simplicity of rank-one components for each of several ways to merge them."""
    return torch.tensor(
        [[minimality(on), simplicity(on, ranks)] for on, ranks in (merge(active, g) for g in all_groups)],
        dtype=torch.float64,
    )


def shortest(active: Bool[Tensor, "inputs C"], alpha: float, n_names: int | None = None) -> Groups:
    """The way to merge rank-one components with the fewest bits; of equals, the one that merges least.

    Tries every partition, so for up to eight components or so. `n_names` is the C of log2 C, by default their number.
    """
    choices = partitions(active.shape[1])
    bits = lengths(active, choices) @ torch.tensor([math.log2(n_names or active.shape[1]), alpha], dtype=torch.float64)
    return choices[int((bits <= bits.min() + 1e-9).int().argmax())]


def sum_of_powers(values: Float[Tensor, "*C R"], p: float) -> Float[Tensor, "*C"]:
    """Σ_r values_r^p over those that are not zero but for rounding; their number as p → 0."""
    zero = values.shape[-1] * torch.finfo(values.dtype).eps * values.amax(dim=-1, keepdim=True)
    return torch.where(values > zero, values.pow(p), 0.0).sum(dim=-1)


def schatten(P: Float[Tensor, "*C d_out d_in"], p: float) -> Float[Tensor, "*C"]:
    """Σ_m σ_m^p over the singular values σ, the true ‖P‖_p^p of eq. 19; the rank as p → 0."""
    return sum_of_powers(torch.linalg.svdvals(P), p)


def turned_factors(
    P: Float[Tensor, "d_out d_in"], degrees: float
) -> tuple[Float[Tensor, "d_out R"], Float[Tensor, "R d_in"]]:
    """Factors U, V with U V = P: at 0° its singular vectors, otherwise neighbouring pairs of these mixed by that angle.

    Factor r then has the length ‖U_r‖ ‖V_r‖ of an average of singular values, at 45° of both alike.
    """
    u, sigma, v = torch.linalg.svd(P, full_matrices=False)
    Q, turn = torch.eye(len(sigma)).to(P), math.radians(degrees)
    rotation = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    for i in range(0, len(sigma) - 1, 2):
        Q[i : i + 2, i : i + 2] = torch.tensor(rotation, dtype=P.dtype)
    return u * sigma.sqrt() @ Q, Q.T @ (sigma.sqrt()[:, None] * v)
