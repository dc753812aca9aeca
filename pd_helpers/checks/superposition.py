"""Exercises on toy models of superposition (notebooks 00 and 02)."""

import torch
import torch.nn.functional as F

from pd_helpers.checks.check import Check, draws

length_ratio = Check(
    "length_ratio",
    lambda p, w: p.norm() / w.norm(),
    lambda: tuple(draws((2,), (2,))),
    {
        "that is the ratio the wrong way round: the component's length goes on top.": lambda p, w: w.norm() / p.norm(),
        "that is the ratio of squared lengths; take the square root.": lambda p, w: (p @ p) / (w @ w),
        "that is the cosine: it says whether the directions agree, not the lengths.": lambda p, w: F.cosine_similarity(
            p, w, dim=0
        ),
    },
)
mechanism = Check(
    "mechanism",
    lambda W, c: torch.outer(W[:, c], torch.eye(W.shape[1])[c]),
    lambda: tuple((W, c) for (W,), c in zip(draws((2, 5)), (0, 2, 4), strict=True)),
    {
        "that keeps every column but c; the mechanism keeps column c only.": lambda W, c: (
            W - torch.outer(W[:, c], torch.eye(W.shape[1])[c])
        ),
        "you return W itself; all columns but c must be zero.": lambda W, c: W,
    },
)
tms_output = Check(
    "tms_output",
    lambda W, b, x: F.relu(x @ W.T @ W + b),
    lambda: tuple(draws((2, 5), (5,), (7, 5))),
    {
        "the ReLU is missing.": lambda W, b, x: x @ W.T @ W + b,
        "the bias is missing.": lambda W, b, x: F.relu(x @ W.T @ W),
        "the bias goes inside the ReLU.": lambda W, b, x: F.relu(x @ W.T @ W) + b,
    },
)
