"""Exercises on SPD (notebook 13): its importance loss, MMCS (APD eq. 3), and directions that subcomponents write."""

import torch
import torch.nn.functional as F

from pd_helpers.analysis import metrics
from pd_helpers.course.kit.check import Check, draws

importance_minimality = Check(
    "importance_minimality",
    lambda g, p: g.pow(p).sum(dim=-1).mean(),
    lambda: tuple((g, p) for (g,), p in zip(draws((6, 4), uniform=True), (1.0, 2.0, 0.9), strict=True)),
    {
        "sum over subcomponents, mean over the batch; you took the mean over both.": lambda g, p: g.pow(p).mean(),
        "sum over subcomponents, mean over the batch; you summed over both.": lambda g, p: g.pow(p).sum(),
        "the exponent p is missing.": lambda g, p: g.sum(dim=-1).mean(),
    },
)
mmcs = Check(
    "mmcs",
    lambda P, W: metrics.mmcs(P, W),
    lambda: tuple(draws((6, 2, 5), (2, 5))),
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
    },
)
write_directions = Check(
    "write_directions",
    lambda V: torch.linalg.inv(V).T,
    lambda: tuple((V + 3 * torch.eye(len(V)),) for (V,) in draws((2, 2))),
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
