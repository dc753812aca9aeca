"""Exercises on SPD (notebook 13)."""

import torch
import torch.nn.functional as F

from pd_helpers import causal_importance, metrics
from pd_helpers.checks.check import Check, draws

sample_masks = Check(
    "sample_masks",
    lambda g, r: g + (1 - g) * r,
    lambda: tuple(draws((6, 4), (6, 4), uniform=True)),
    {
        "that is uniform on [0, g]; a mask is uniform on [g, 1].": lambda g, r: g * r,
        "that ignores r: the mask must be random, except where g is 1.": lambda g, r: g,
        "that is the complement: importance 1 must give the mask 1.": lambda g, r: 1 - g + g * r,
        "that exceeds 1; the random part may only fill the gap 1 - g.": lambda g, r: g + r,
    },
)
lower_leaky = Check(
    "lower_leaky",
    causal_importance.lower_leaky,
    lambda: tuple((2 * x,) for (x,) in draws((12,))),
    {
        "that is the hard sigmoid without a leak: below 0 the slope is 0.01.": lambda x: x.clamp(0, 1),
        "the leak is on the wrong side: it belongs below 0.": causal_importance.upper_leaky,
        "above 1 the value stays 1.": lambda x: torch.where(x < 0, 0.01 * x, x),
    },
)
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
        "divide by both lengths: that is a dot product, not a cosine.": lambda P, W: (
            (P * W).sum(1).amax(0).mean().item()
        ),
    },
)
