"""Exercises on APD's residual MLPs (notebooks 08 and 09)."""

import torch
from torch import Tensor

from pd_helpers.checks.check import Check, draws


def _scrub(half: Tensor, own: Tensor, keep: bool) -> Tensor:
    return half | own if keep else half & ~own


def _halves() -> tuple[tuple[Tensor, Tensor, bool], ...]:
    tables = draws((6, 9), (6, 9), times=4, uniform=True)
    return tuple((half < 0.5, own < 0.2, keep) for (half, own), keep in zip(tables, (True, False) * 2, strict=True))


scrub_mask = Check(
    "scrub_mask",
    _scrub,
    _halves,
    {
        "you leave the own components to chance; keep or ablate all of them.": lambda half, own, keep: half,
        "with keep, only own components are left on; the random half stays on too.": lambda half, own, keep: (
            half & own if keep else half & ~own
        ),
        "keep is the wrong way round: with it, own components are always on.": lambda half, own, keep: _scrub(
            half, own, not keep
        ),
        "without keep you ablate only the own components; the random half must be off as well.": (
            lambda half, own, keep: half | own if keep else ~own
        ),
        "that switches the random half over where a component is own; on or off for certain, not the opposite.": (
            lambda half, own, keep: half ^ own
        ),
    },
)


def _contribution(W_E: Tensor, P_in: Tensor, P_out: Tensor, W_U: Tensor, i: int) -> Tensor:
    return (W_U[i] @ P_out) * (P_in @ W_E[:, i])


contribution = Check(
    "contribution",
    _contribution,
    lambda: tuple((*weights, i) for weights, i in zip(draws((8, 5), (6, 8), (8, 6), (5, 8)), (0, 3, 4), strict=True)),
    {
        "that is what each neuron reads; multiply by what it writes to output i.": lambda W_E, P_in, P_out, W_U, i: (
            P_in @ W_E[:, i]
        ),
        "that is what each neuron writes; multiply by what it reads of feature i.": lambda W_E, P_in, P_out, W_U, i: (
            W_U[i] @ P_out
        ),
        "add nothing up: one number for each neuron is wanted, and you gave their sum to every neuron.": (
            lambda W_E, P_in, P_out, W_U, i: _contribution(W_E, P_in, P_out, W_U, i).sum().expand(len(P_in))
        ),
        "a neuron writes *times* what it reads; you added the two.": lambda W_E, P_in, P_out, W_U, i: (
            W_U[i] @ P_out + P_in @ W_E[:, i]
        ),
    },
)


def _count_doubled(A: Tensor) -> int:
    return int((torch.bincount(A.argmax(dim=1)) > 1).sum())


count_doubled = Check(
    "count_doubled",
    _count_doubled,
    lambda: tuple((A,) for (A,) in draws((9, 7), times=4, uniform=True)),
    {
        "those are features that share a component; count the components.": lambda A: int(
            sum(n for n in torch.bincount(A.argmax(dim=1)).tolist() if n > 1)
        ),
        "the largest attribution of each *feature* is wanted: the maximum runs along components, dim=1.": lambda A: int(
            (torch.bincount(A.argmax(dim=0)) > 1).sum()
        ),
        "that counts components that are first for one feature or more; two or more are wanted.": lambda A: len(
            A.argmax(dim=1).unique()
        ),
        "that counts components with exactly one feature; two or more are wanted.": lambda A: int(
            (torch.bincount(A.argmax(dim=1)) == 1).sum()
        ),
    },
)


def _layer_shares(contributions: Tensor, n_layers: int) -> Tensor:
    positive = contributions.clamp(min=0).unflatten(1, (n_layers, -1)).sum(dim=2)
    return positive / positive.sum(dim=1, keepdim=True)


layer_shares = Check(
    "layer_shares",
    _layer_shares,
    lambda: tuple((A, n) for (A,), n in zip(draws((5, 12)), (2, 3, 4), strict=True)),
    {
        "neurons that pull the output down count too: take only positive contributions.": lambda A, n: (
            A.unflatten(1, (n, -1)).sum(dim=2) / A.sum(dim=1, keepdim=True)
        ),
        "those are sums; divide by the feature's total over all layers.": lambda A, n: (
            A.clamp(min=0).unflatten(1, (n, -1)).sum(dim=2)
        ),
        "the shares of one feature must add up to 1; yours of one layer do.": lambda A, n: (
            A.clamp(min=0).unflatten(1, (n, -1)).sum(dim=2) / A.clamp(min=0).unflatten(1, (n, -1)).sum(dim=(0, 2))
        ),
        "neurons of a layer stand side by side: the first d_mlp of them are layer 0's.": lambda A, n: (
            A.clamp(min=0).unflatten(1, (-1, n)).sum(dim=1) / A.clamp(min=0).sum(dim=1, keepdim=True)
        ),
    },
)


def _kept_by_rank(P: Tensor, rank: int) -> Tensor:
    squared = torch.linalg.svdvals(P).square()
    return squared[:rank].sum() / squared.sum()


kept_by_rank = Check(
    "kept_by_rank",
    _kept_by_rank,
    lambda: tuple((P, rank) for (P,), rank in zip(draws((5, 8)), (1, 2, 3), strict=True)),
    {
        "squared lengths add up, singular values do not: square them first.": lambda P, rank: (
            torch.linalg.svdvals(P)[:rank].sum() / torch.linalg.svdvals(P).sum()
        ),
        "that is the share of the length; the share of the squared length is wanted.": lambda P, rank: _kept_by_rank(
            P, rank
        ).sqrt(),
        "that is what is lost; what is kept is wanted.": lambda P, rank: 1 - _kept_by_rank(P, rank),
        "that is only the last of them; add up the largest ones.": lambda P, rank: (
            torch.linalg.svdvals(P)[rank - 1].square() / torch.linalg.svdvals(P).square().sum()
        ),
    },
)
