"""Exercises on SPD (notebook 13): its importance loss, MMCS (APD eq. 3), and directions that subcomponents write."""

import torch
import torch.nn.functional as F

from pd_helpers.analysis import metrics
from pd_helpers.course.kit.check import Check, draws

importance_minimality = Check(
    "importance_minimality",
    lambda g, p: g.pow(p).sum(dim=-1).mean(),
    lambda: [
        (torch.tensor([[1.0, 0.5], [0.0, 0.5], [0.0, 1.0]]), 2.0),
        *((g, p) for (g,), p in zip(draws([(6, 4)], [(3, 5)], [(4, 4)], uniform=True), (1.0, 2.0, 0.9), strict=True)),
    ],
    {
        "sum over subcomponents, mean over the batch; you took the mean over both.": lambda g, p: g.pow(p).mean(),
        "sum over subcomponents, mean over the batch; you summed over both.": lambda g, p: g.pow(p).sum(),
        "the exponent p is missing.": lambda g, p: g.sum(dim=-1).mean(),
        "the power belongs to each importance, before the sum.": lambda g, p: g.sum(dim=-1).pow(p).mean(),
        "sum over subcomponents, mean over the batch; you did it the other way round.": lambda g, p: (
            g.pow(p).sum(dim=0).mean()
        ),
    },
)
mmcs = Check(
    "mmcs",
    lambda P, W: metrics.mmcs(P, W),
    lambda: [
        (torch.tensor([[[3.0, 1.0], [4.0, 0.0]], [[-1.0, 1.0], [0.0, 1.0]]]), torch.eye(2)),
        *draws(((6, 2, 5), (2, 5)), ((3, 4, 2), (4, 2)), ((2, 3, 3), (3, 3))),
    ],
    {
        "take the maximum over components before the mean over columns; you took the mean over both.": lambda P, W: (
            F.cosine_similarity(P, W[None], dim=1).mean().item()
        ),
        "the cosine runs along columns (down the hidden dimensions), not along rows.": lambda P, W: (
            F.cosine_similarity(P, W[None], dim=2).amax(0).mean().item()
        ),
        "that is a dot product and not a cosine; divide by both lengths.": lambda P, W: (
            (P * W).sum(1).amax(0).mean().item()
        ),
        "an arrow that points the other way is no match: take the largest cosine, not the largest size of one.": (
            lambda P, W: F.cosine_similarity(P, W[None], dim=1).abs().amax(0).mean().item()
        ),
        "each column of W has its own best component; you took the one component that is best on average.": (
            lambda P, W: F.cosine_similarity(P, W[None], dim=1).mean(dim=1).amax().item()
        ),
        "compare column j of W with column j of a component, and not with its other columns.": lambda P, W: (
            (F.normalize(P, dim=1).transpose(1, 2) @ F.normalize(W, dim=0)).amax(dim=(0, 1)).mean()
        ),
        "the mean over columns comes last; you return one number for each column.": lambda P, W: F.cosine_similarity(
            P, W[None], dim=1
        ).amax(0),
    },
)
write_directions = Check(
    "write_directions",
    lambda V: torch.linalg.inv(V).T,
    lambda: [
        (torch.tensor([[1.0, 1.0], [0.0, 2.0]]),),
        *((V + 3 * torch.eye(len(V)),) for (V,) in draws([(2, 2)], [(3, 3)], [(4, 4)])),
    ],
    {
        "that is V itself, which is right only for directions of length one at right angles to each other.": lambda V: (
            V
        ),
        "the directions are the columns of your matrix; transpose it so that they are its rows.": lambda V: (
            torch.linalg.inv(V)
        ),
        "the directions are right, but the lengths are not: U_c · V_c must be 1.": lambda V: F.normalize(
            torch.linalg.inv(V).T, dim=1
        ),
    },
)
