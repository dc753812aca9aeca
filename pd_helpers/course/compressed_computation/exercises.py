"""Exercises on compressed computation and its mixing matrix (notebook 04)."""

import torch
from torch import Tensor

from pd_helpers.analysis import subspaces
from pd_helpers.course.compressed_computation import ideas as mixing
from pd_helpers.course.kit.check import Check, draws


def _embeddings() -> tuple[tuple[Tensor], ...]:
    small = torch.tensor([[1.0, 0.6], [0.0, 0.8]])
    random = draws([(7, 4)], [(3, 5)], [(4, 4)])
    return ((small,), *((torch.nn.functional.normalize(W_E, dim=0),) for (W_E,) in random))


def _symmetric() -> tuple[tuple[Tensor, int], ...]:
    small = torch.tensor([[-3.0, 1.0], [1.0, -3.0]])
    random = zip(draws([(6, 6)], [(5, 5)], [(4, 4)], [(3, 3)]), (2, 4, 1, 3), strict=True)
    return ((small, 1), *((Z + Z.T, k) for (Z,), k in random))


mixing_matrix = Check(
    "mixing_matrix",
    subspaces.mixing_matrix,
    _embeddings,
    {
        "the sign is wrong: that is what the skip adds by mistake, and the MLP must take it away.": lambda W_E: (
            -subspaces.mixing_matrix(W_E)
        ),
        "the label contains x itself too, so the identity is missing: the diagonal must come out as 0.": lambda W_E: (
            subspaces.mixing_matrix(W_E) - torch.eye(W_E.shape[1])
        ),
        "that is the whole linear part of the label; now subtract what the skip connection supplies.": lambda W_E: (
            torch.eye(W_E.shape[1])
        ),
        "W_E maps features to the stream and W_Eᵀ maps back; you multiplied them the other way round.": lambda W_E: (
            torch.eye(len(W_E)) - W_E @ W_E.T
        ),
    },
)
best_offset = Check(
    "best_offset",
    mixing.best_offset,
    lambda: [(1.0, 2), (0.1, 50), (1.0, 50), (0.3, 5), (0.5, 1)],
    {
        "E[s²] is not E[s]²: add the variance of s, d times that of one neuron.": lambda p, d: 1 / d,
        "E[s²] contains the products of different neurons too; there are d(d − 1) of them.": lambda p, d: (
            p / 4 * (d * p / 4) / (d * p / 6)
        ),
        "the mean of ReLU(x_i) is p/4: p for being on, times 1/2 for being positive, times the mean 1/2.": (
            lambda p, d: p / 2 * (d * p / 2) / (d * (p / 6 - p**2 / 4) + (d * p / 2) ** 2)
        ),
        "each neuron's variance is p/6 − (p/4)²; the second part is missing.": lambda p, d: (
            p / 4 * (d * p / 4) / (d * p / 6 + (d * p / 4) ** 2)
        ),
    },
)
project = Check(
    "project",
    subspaces.project,
    _symmetric,
    {
        "torch.linalg.eigh sorts eigenvalues in ascending order; the first k columns belong to the smallest ones.": (
            lambda M, k: _projection(torch.linalg.eigh(M).eigenvectors[:, :k])
        ),
        "top means the largest eigenvalues, not the largest absolute values.": lambda M, k: _projection(
            torch.linalg.svd(M).U[:, :k]
        ),
        "that is M restricted to k directions; a projection leaves out the eigenvalues.": lambda M, k: (
            subspaces.project(M, k) @ M
        ),
        "the eigenvectors are the columns of the matrix that eigh returns, not its rows.": lambda M, k: _projection(
            torch.linalg.eigh(M).eigenvectors[-k:].T
        ),
    },
)


def _projection(Q: Tensor) -> Tensor:
    return Q @ Q.T
