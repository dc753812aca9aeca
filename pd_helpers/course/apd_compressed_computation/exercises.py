"""Exercises on APD of a residual MLP with one layer (notebook 08): scrubbing, contributions, shared components."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws


def _scrub(half: Tensor, own: Tensor, keep: bool) -> Tensor:
    return half | own if keep else half & ~own


def _halves() -> tuple[tuple[Tensor, Tensor, bool], ...]:
    half, own = torch.tensor([[True, False, True, False], [True, True, False, False]])
    tables = draws(*(2 * [shape] for shape in ((6, 9), (6, 9), (4, 4), (5, 3))), uniform=True)
    random = [(half < 0.5, own < 0.3, keep) for (half, own), keep in zip(tables, (True, False) * 2, strict=True)]
    return ((half[None], own[None], True), (half[None], own[None], False), *random)


scrub_mask = Check(
    "scrub_mask",
    _scrub,
    _halves,
    {
        "you leave the own components to chance; keep or ablate all of them.": lambda half, own, keep: half,
        "with keep, you leave only own components on; the random half must stay on too.": lambda half, own, keep: (
            half & own if keep else half & ~own
        ),
        "keep is the wrong way round: with keep, own components are always on.": lambda half, own, keep: _scrub(
            half, own, not keep
        ),
        "without keep you ablate only the own components; the random half must be off as well.": (
            lambda half, own, keep: half | own if keep else ~own
        ),
        "you reverse the random half for own components; they must be on for certain, or off for certain.": (
            lambda half, own, keep: half ^ own
        ),
    },
)


def _layers() -> list[tuple[Tensor, Tensor, Tensor, Tensor, int]]:
    """W_E, P_in, P_out and W_U of small networks, and an index of a feature."""
    W_E, P_in = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[1.0, -1.0], [1.0, -4.0]])
    P_out, W_U = torch.tensor([[1.0, 3.0], [-2.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    sizes = ((3, 4, 6), (4, 4, 3), (3, 5, 4))  # features, d_resid, d_mlp
    weights = draws(*(((d, n), (m, d), (d, m), (n, d)) for n, d, m in sizes))
    return [(W_E, P_in, P_out, W_U, 1), *((*tensors, i) for tensors, i in zip(weights, (0, 3, 2), strict=True))]


def _contribution(W_E: Tensor, P_in: Tensor, P_out: Tensor, W_U: Tensor, i: int) -> Tensor:
    return (W_U[i] @ P_out) * (P_in @ W_E[:, i])


contribution = Check(
    "contribution",
    _contribution,
    _layers,
    {
        "that is what each neuron reads; multiply by what it writes to output i.": lambda W_E, P_in, P_out, W_U, i: (
            P_in @ W_E[:, i]
        ),
        "that is what each neuron writes; multiply by what it reads of feature i.": lambda W_E, P_in, P_out, W_U, i: (
            W_U[i] @ P_out
        ),
        "do not sum over neurons: return one number for each neuron, not their sum.": lambda *arguments: _contribution(
            *arguments
        ).sum(),
        "do not sum over neurons: return one number for each neuron; you gave the sum to every neuron.": (
            lambda W_E, P_in, P_out, W_U, i: _contribution(W_E, P_in, P_out, W_U, i).sum().expand(len(P_in))
        ),
        "a neuron writes *times* what it reads; you added the two.": lambda W_E, P_in, P_out, W_U, i: (
            W_U[i] @ P_out + P_in @ W_E[:, i]
        ),
    },
)


def _attributions() -> list[tuple[Tensor]]:
    """Attributions, in the first of which one component comes first three times and one twice."""
    first = torch.tensor([0, 2, 0, 1, 2, 0])
    small = F.one_hot(first[:4], 3) * 0.5 + torch.tensor([0.1, 0.3, 0.2])
    triple = F.one_hot(first, 4) * 0.5 + torch.tensor([0.4, 0.2, 0.3, 0.0])
    return [(small,), (triple,), *draws([(9, 7)], [(6, 9)], [(12, 4)], [(5, 5)], uniform=True)]


def _count_doubled(A: Tensor) -> int:
    return int((torch.bincount(A.argmax(dim=1)) > 1).sum())


count_doubled = Check(
    "count_doubled",
    _count_doubled,
    _attributions,
    {
        "you count features that share a component; count the components.": lambda A: int(
            sum(n for n in torch.bincount(A.argmax(dim=1)).tolist() if n > 1)
        ),
        "take the largest attribution of each *feature*: the maximum runs along components, dim=1.": lambda A: int(
            (torch.bincount(A.argmax(dim=0)) > 1).sum()
        ),
        "you count components that are first for one feature or more; count those with two or more.": lambda A: len(
            A.argmax(dim=1).unique()
        ),
        "you count components with exactly one feature; count those with two or more.": lambda A: int(
            (torch.bincount(A.argmax(dim=1)) == 1).sum()
        ),
        "you count components with exactly two features; three or more are doubled as well.": lambda A: int(
            (torch.bincount(A.argmax(dim=1)) == 2).sum()
        ),
        "you count the features that are left over; count the components that have two or more.": lambda A: (
            len(A) - len(A.argmax(dim=1).unique())
        ),
    },
)
