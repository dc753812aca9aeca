"""The mixing matrix of a noisy skip connection, and what another matrix does along its directions (Bhagat et al. 2026).

    M = I − W_Eᵀ W_E                  what the skip connection leaves to the MLP, besides ReLU(x)
    M r_k = σ_k w_k                   directions r_k → w_k of M; both are eigenvectors if M is symmetric
    cos(w_k, B r_k), w_kᵀ B r_k       cosine and gain of another matrix B along direction k

In the notebooks B is W_out W_in, what an MLP would do without its ReLU.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


def mixing_matrix(W_E: Float[Tensor, "d_resid n"]) -> Float[Tensor, "n n"]:
    """I − W_Eᵀ W_E for unit-norm columns: what the skip connection leaves to the MLP, besides ReLU(x).

    The residual MLP's output is W_Eᵀ W_E x + MLP(x), and its label is x + ReLU(x). The diagonal of the matrix is zero.
    """
    overlap = W_E.T @ W_E
    return overlap.diag().diag() - overlap


class Directions(NamedTuple):
    """What a matrix B does along the directions of M, strongest first."""

    strength: Float[Tensor, " n"]
    """Eigenvalue or singular value of M."""
    cosine: Float[Tensor, " n"]
    """Cosine similarity of B r_k with w_k, the direction that M maps r_k to, up to sign."""
    gain: Float[Tensor, " n"]
    """Length of B r_k along w_k, for r_k of length one."""


def along_directions(B: Float[Tensor, "n n"], M: Float[Tensor, "n n"]) -> Directions:
    """Apply B to the eigenvectors of a symmetric M and compare with the same vectors.

    If M is not symmetric, B is applied to its right singular vectors, and the left ones are compared. Eigenvalues are
    sorted from the largest to the most negative.
    """
    if torch.allclose(M, M.T):
        strength, reads = (part.flip(-1) for part in torch.linalg.eigh(M))
        writes = reads
    else:
        writes, strength, reads = torch.linalg.svd(M)
        reads = reads.T
    through = B @ reads
    gain = (writes * through).sum(dim=0)
    return Directions(strength, gain / through.norm(dim=0), gain)


def subspace_overlap(A: Float[Tensor, "d n_a"], B: Float[Tensor, "d n_b"]) -> float:
    """‖Q_Aᵀ Q_B‖² / min(n_a, n_b), with orthonormal bases Q of the column spaces; 1 if one space contains the other.

    This is the mean squared cosine of the principal angles. For random spaces it is max(n_a, n_b) / d on average.
    """
    Q_A, Q_B = (torch.linalg.qr(X).Q for X in (A, B))
    return (Q_A.T @ Q_B).square().sum().item() / min(Q_A.shape[1], Q_B.shape[1])


def project(M: Float[Tensor, "n n"], k: int) -> Float[Tensor, "n n"]:
    """The orthogonal projection onto the eigenvectors of the k largest eigenvalues of a symmetric M."""
    _, vectors = torch.linalg.eigh(M)
    return vectors[:, -k:] @ vectors[:, -k:].T
