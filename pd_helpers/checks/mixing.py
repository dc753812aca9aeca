"""Exercises on compressed computation and its mixing matrix (notebook 04)."""

import torch
from torch import Tensor

from pd_helpers import mixing
from pd_helpers.checks.check import Check, draws


def _embeddings() -> tuple[tuple[Tensor], ...]:
    return tuple((torch.nn.functional.normalize(W_E, dim=0),) for (W_E,) in draws((7, 4)))


def _symmetric() -> tuple[tuple[Tensor, int], ...]:
    return tuple((Z + Z.T, k) for (Z,), k in zip(draws((6, 6)), (1, 2, 4), strict=True))


mixing_matrix = Check(
    "mixing_matrix",
    mixing.mixing_matrix,
    _embeddings,
    {
        "that is what the skip adds; the MLP has to supply what is left over, with the other sign.": lambda W_E: (
            -mixing.mixing_matrix(W_E)
        ),
        "the label holds x itself too, so the identity is missing: its diagonal must come out as 0.": lambda W_E: (
            mixing.mixing_matrix(W_E) - torch.eye(W_E.shape[1])
        ),
        "that is all that is wanted besides ReLU(x); now take off what the skip supplies.": lambda W_E: torch.eye(
            W_E.shape[1]
        ),
    },
)
best_offset = Check(
    "best_offset",
    mixing.best_offset,
    lambda: ((0.1, 50), (1.0, 50), (0.3, 5)),
    {
        "E[s²] is not E[s]²: add the variance of s, d times that of one neuron.": lambda p, d: 1 / d,
        "E[s²] has products of two different neurons too, d(d − 1) of them.": lambda p, d: (
            p / 4 * (d * p / 4) / (d * p / 6)
        ),
        "the mean of ReLU(x_i) is p/4: on with p, then positive half the time, then 1/2 on average.": lambda p, d: (
            p / 2 * (d * p / 2) / (d * (p / 6 - p**2 / 4) + (d * p / 2) ** 2)
        ),
        "each neuron's variance is p/6 − (p/4)²; the second part is missing.": lambda p, d: (
            p / 4 * (d * p / 4) / (d * p / 6 + (d * p / 4) ** 2)
        ),
    },
)
project = Check(
    "project",
    mixing.project,
    _symmetric,
    {
        "torch.linalg.eigh sorts eigenvalues upwards: the first k columns are the bottom ones.": lambda M, k: (
            torch.linalg.eigh(M).eigenvectors[:, :k] @ torch.linalg.eigh(M).eigenvectors[:, :k].T
        ),
        "top means the largest eigenvalues, not the largest absolute values.": lambda M, k: _span(
            torch.linalg.svd(M).U[:, :k]
        ),
        "that is M cut down to k directions; a projection leaves out the eigenvalues.": lambda M, k: (
            mixing.project(M, k) @ M
        ),
        "eigenvectors are the columns of what eigh gives, not the rows.": lambda M, k: _span(
            torch.linalg.eigh(M).eigenvectors[-k:].T
        ),
    },
)


def _span(Q: Tensor) -> Tensor:
    return Q @ Q.T
