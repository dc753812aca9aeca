"""Exercises on APD (notebook 07): batch top-k, attributions (APD eq. 8), and Schatten norms (APD eq. 22)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_helpers.core import attributions, losses
from pd_helpers.course.kit.check import Check, draws


def _attribution(W: Tensor, b: Tensor, P: Tensor, x: Tensor) -> Tensor:
    z = W.T @ W @ x + b
    return ((P.T @ W @ x + W.T @ P @ x) * (z > 0)).square().mean().sqrt()


def _biased() -> list[tuple[Tensor, ...]]:
    """W, b, P and x of small networks."""
    small = [torch.tensor(v) for v in ([[1.0, -1.0]], [-0.5, 0.5], [[1.0, 1.0]], [2.0, 1.0])]
    random = draws(*(((m, n), (n,), (m, n), (n,)) for m, n in ((2, 5), (3, 4), (4, 3))))
    return [tuple(small), *((W, -0.2 * b.abs(), P, x.abs()) for W, b, P, x in random)]


def _ablated(W: Tensor, b: Tensor, P: Tensor, x: Tensor) -> Tensor:
    """The output's change when P is removed from W."""
    return F.relu(W.T @ W @ x + b) - F.relu((W - P).T @ (W - P) @ x + b)


def _batches() -> list[tuple[Tensor, int]]:
    """Attributions, some of them zero, and how many are to be kept: in two batches more than there are above zero."""
    small = [(torch.tensor([[5.0, 4.0], [1.0, 0.0]]), 2), (torch.tensor([[0.0, 3.0], [0.0, 0.0]]), 2)]
    tables = draws(((6, 4), (6, 4)), ((3, 5), (3, 5)), ((5, 3), (5, 3)), ((4, 4), (4, 4)), uniform=True)
    random = [(A * (mask > 0.3), k) for (A, mask), k in zip(tables, (4, 1, 5, 14), strict=True)]
    return [*small, *random]


def _rows(A: Tensor, k: int) -> Tensor:
    """The largest k attributions of every row."""
    return torch.zeros_like(A).scatter(1, A.topk(min(k, A.shape[1]), dim=1).indices, 1.0)


def _factors() -> list[tuple[Tensor, Tensor, float]]:
    small = torch.tensor([[[3.0, 0.0], [4.0, 1.0]]]), torch.tensor([[[0.0, 5.0], [0.0, 4.0]]]), 0.5
    pairs = draws(((5, 2, 3), (5, 3, 4)), ((3, 4, 2), (3, 2, 2)), ((2, 3, 3), (2, 3, 3)))
    return [small, *((U, V, p) for (U, V), p in zip(pairs, (1.0, 0.9, 0.6), strict=True))]


batch_top_k = Check(
    "batch_top_k",
    lambda A, k: attributions.batch_top_k(A, k).float(),
    _batches,
    {
        "you take the top of every row; batch top-k takes the top of the whole batch.": _rows,
        "you take the top of every row and share k out among the rows; batch top-k takes the top of the whole batch.": (
            lambda A, k: _rows(A, max(1, round(k / len(A))))
        ),
        "you take the top of every column; batch top-k takes the top of the whole batch.": lambda A, k: _rows(A.T, k).T,
        "a component without any attribution is never active; you switch some of those on to make k ones.": (
            lambda A, k: torch.zeros(A.numel()).index_fill(0, A.flatten().topk(k).indices, 1.0).view(A.shape)
        ),
        "you keep every component that has an attribution; keep the k largest.": lambda A, k: (A > 0).float(),
        "you keep the smallest attributions; keep the largest.": lambda A, k: attributions.batch_top_k(
            (A.max() + 1 - A) * (A > 0), k
        ).float(),
        "you keep the attributions themselves; the mask holds only 0 and 1.": lambda A, k: (
            A * attributions.batch_top_k(A, k)
        ),
    },
)
attribution = Check(
    "attribution",
    _attribution,
    _biased,
    {
        "W is used twice (W and Wᵀ), so moving it along P changes the output in two places; you have only one.": (
            lambda W, b, P, x: ((W.T @ P @ x) * (W.T @ W @ x + b > 0)).square().mean().sqrt()
        ),
        "W is used twice (W and Wᵀ); you have only the second use, Pᵀ.": lambda W, b, P, x: (
            ((P.T @ W @ x) * (W.T @ W @ x + b > 0)).square().mean().sqrt()
        ),
        "where the ReLU is off the output does not change: multiply by (z > 0).": lambda W, b, P, x: (
            (P.T @ W @ x + W.T @ P @ x).square().mean().sqrt()
        ),
        "eq. 8 takes the root of the mean square over outputs; you took the sum.": lambda W, b, P, x: (
            ((P.T @ W @ x + W.T @ P @ x) * (W.T @ W @ x + b > 0)).square().sum().sqrt()
        ),
        "the square root is missing.": lambda W, b, P, x: _attribution(W, b, P, x) ** 2,
        "that is what happens if P is removed altogether; take the derivative, the change for a small step along P.": (
            lambda W, b, P, x: _ablated(W, b, P, x).square().mean().sqrt()
        ),
        "that is what happens if all of P is added; take the derivative, the change for a small step along P.": (
            lambda W, b, P, x: _ablated(W, b, -P, x).square().mean().sqrt()
        ),
        "the bias b is missing: it decides where the ReLU is on.": lambda W, b, P, x: _attribution(W, 0 * b, P, x),
        "that is the mean size of the derivatives; take the root of their mean square.": lambda W, b, P, x: (
            ((P.T @ W @ x + W.T @ P @ x) * (W.T @ W @ x + b > 0)).abs().mean()
        ),
    },
)
schatten = Check(
    "schatten",
    losses.schatten,
    _factors,
    {
        "the exponent acts on lengths: ‖U‖²‖V‖² is already squared, so it is raised to p/2.": lambda U, V, p: (
            (U.square().sum(1) * V.square().sum(2)).pow(p).sum(-1)
        ),
        "raise to the power before summing over r, not after.": lambda U, V, p: (
            (U.square().sum(1) * V.square().sum(2)).sum(-1).pow(p / 2)
        ),
        "you summed the entries' absolute values; the lengths ‖U_cr‖ and ‖V_cr‖ are Euclidean.": lambda U, V, p: (
            (U.abs().sum(1) * V.abs().sum(2)).pow(p).sum(-1)
        ),
        "the exponent p is missing.": lambda U, V, p: losses.schatten(U, V, 1.0),
        "return one number for each component; you added them up.": lambda U, V, p: losses.schatten(U, V, p).sum(),
    },
)
