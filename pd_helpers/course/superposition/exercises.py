"""Exercises on toy models of superposition (notebook 02): the mechanism of a feature, and the output of the model."""

import torch
import torch.nn.functional as F

from pd_helpers.course.kit.check import Check, draws

mechanism = Check(
    "mechanism",
    lambda W, c: torch.outer(W[:, c], torch.eye(W.shape[1])[c]),
    lambda: tuple((W, c) for (W,), c in zip(draws((2, 5)), (0, 2, 4), strict=True)),
    {
        "you keep every column but c; the mechanism keeps column c only.": lambda W, c: (
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
