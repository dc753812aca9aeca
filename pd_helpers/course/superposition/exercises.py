"""Exercises on toy models of superposition (notebook 02): the mechanism of a feature, and the output of the model."""

import torch
import torch.nn.functional as F

from pd_helpers.course.kit.check import Check, draws

mechanism = Check(
    "mechanism",
    lambda W, c: torch.outer(W[:, c], torch.eye(W.shape[1])[c]),
    lambda: [
        (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 1),
        *((W, c) for (W,), c in zip(draws([(2, 5)], [(3, 4)], [(4, 3)]), (0, 2, 1), strict=True)),
    ],
    {
        "you keep every column but c; the mechanism keeps column c only.": lambda W, c: (
            W - torch.outer(W[:, c], torch.eye(W.shape[1])[c])
        ),
        "you return W itself; all columns but c must be zero.": lambda W, c: W,
        "you keep row c; the mechanism of feature c is column c.": lambda W, c: torch.outer(torch.eye(len(W))[c], W[c]),
        "that is the column alone; put it into a matrix like W, with zeros elsewhere.": lambda W, c: W[:, c],
    },
)
tms_output = Check(
    "tms_output",
    lambda W, b, x: F.relu(x @ W.T @ W + b),
    lambda: [
        (torch.tensor([[1.0, -1.0]]), torch.tensor([-0.5, 2.0]), torch.tensor([[2.0, 1.0], [0.0, 3.0]])),
        *draws(((2, 5), (5,), (7, 5)), ((3, 4), (4,), (2, 4)), ((3, 3), (3,), (3, 3))),
    ],
    {
        "the ReLU is missing.": lambda W, b, x: x @ W.T @ W + b,
        "the bias is missing.": lambda W, b, x: F.relu(x @ W.T @ W),
        "the bias goes inside the ReLU.": lambda W, b, x: F.relu(x @ W.T @ W) + b,
        "there is one ReLU only, at the output; the hidden values may be negative.": lambda W, b, x: F.relu(
            F.relu(x @ W.T) @ W + b
        ),
        "W maps inputs to the hidden space, and Wᵀ maps back; you have them the wrong way round.": lambda W, b, x: (
            F.relu(x @ W @ W.T + b)
        ),
    },
)
