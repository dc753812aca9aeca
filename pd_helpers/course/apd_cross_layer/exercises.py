"""Exercises on APD across layers (notebook 09): shares of layers, and what is kept at a lower rank."""

import torch
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws


def _layer_shares(contributions: Tensor, n_layers: int) -> Tensor:
    return _shares(contributions.clamp(min=0).unflatten(1, (n_layers, -1)).sum(dim=2))


def _shares(sums: Tensor) -> Tensor:
    return sums / sums.sum(dim=1, keepdim=True)


layer_shares = Check(
    "layer_shares",
    _layer_shares,
    lambda: [
        (torch.tensor([[1.0, -2.0, 3.0, 0.0], [2.0, 2.0, -1.0, 4.0]]), 2),
        *((A, n) for (A,), n in zip(draws([(5, 12)], [(3, 9)], [(2, 12)]), (2, 3, 4), strict=True)),
    ],
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
        "leave negative contributions out; you count their sizes.": lambda A, n: _layer_shares(A.abs(), n),
        "take the positive part of each neuron's contribution; you took that of each layer's sum.": lambda A, n: (
            _shares(A.unflatten(1, (n, -1)).sum(dim=2).clamp(min=0))
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
    lambda: [
        (torch.tensor([[3.0, 0.0], [0.0, 4.0]]), 1),
        *((P, r) for (P,), r in zip(draws([(5, 8)], [(4, 3)], [(6, 6)], [(2, 4)]), (2, 1, 4, 2), strict=True)),
    ],
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
        "those are the smallest singular values; the largest come first.": lambda P, rank: (
            torch.linalg.svdvals(P).flip(0)[:rank].square().sum() / P.square().sum()
        ),
        "that is the squared length that is kept; divide by the whole.": lambda P, rank: (
            _kept_by_rank(P, rank) * P.square().sum()
        ),
    },
)
