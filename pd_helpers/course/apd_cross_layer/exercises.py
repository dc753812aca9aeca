"""Exercises on APD across layers (notebook 09): shares of layers, and what is kept at a lower rank."""

import torch
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws


def _layer_shares(contributions: Tensor, n_layers: int) -> Tensor:
    positive = contributions.clamp(min=0).unflatten(1, (n_layers, -1)).sum(dim=2)
    return positive / positive.sum(dim=1, keepdim=True)


layer_shares = Check(
    "layer_shares",
    _layer_shares,
    lambda: tuple((A, n) for (A,), n in zip(draws((5, 12)), (2, 3, 4), strict=True)),
    {
        "you also count neurons that pull the output down; take only positive contributions.": lambda A, n: (
            A.unflatten(1, (n, -1)).sum(dim=2) / A.sum(dim=1, keepdim=True)
        ),
        "those are sums and not shares; divide by the feature's total over all layers.": lambda A, n: (
            A.clamp(min=0).unflatten(1, (n, -1)).sum(dim=2)
        ),
        "the shares of one feature must add up to 1; in your answer those of one layer do.": lambda A, n: (
            A.clamp(min=0).unflatten(1, (n, -1)).sum(dim=2) / A.clamp(min=0).unflatten(1, (n, -1)).sum(dim=(0, 2))
        ),
        "the neurons of a layer are side by side: the first d_mlp columns belong to layer 0.": lambda A, n: (
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
        "that is the share of the length; return the share of the squared length.": lambda P, rank: _kept_by_rank(
            P, rank
        ).sqrt(),
        "that is the share that is lost; return the share that is kept.": lambda P, rank: 1 - _kept_by_rank(P, rank),
        "you took only one singular value; add up all of the largest ones.": lambda P, rank: (
            torch.linalg.svdvals(P)[rank - 1].square() / torch.linalg.svdvals(P).square().sum()
        ),
    },
)
