"""Each condition in an exercise's text: an answer that breaks this one alone is wrong, whatever else it does right.

The usual mistakes are the checks' own slips (see test_checks.py); these are others, and answers that fit
some inputs only. This file has notebooks 00 to 10.
"""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import tensor

from pd_helpers.checks import CHECKS

svd = torch.linalg.svdvals


def relu(x):
    return x.clamp(min=0)


def tms(W, b, x):
    return relu(W.T @ W @ x + b)


def slope(W, b, P, x):
    return (P.T @ W @ x + W.T @ P @ x) * (W.T @ W @ x + b > 0)


def top(A, k, floor=0.0):
    return ((A.flatten().topk(min(k, A.numel())).values[-1] <= A) & (floor < A)).float()


def eigenvectors(M):
    return torch.linalg.eigh(M).eigenvectors


def kept(shares):
    return shares / shares.sum(dim=1, keepdim=True)


def bits(active, ranks, alpha, name):
    return (active @ (alpha * ranks + name)).mean()


# Check → what is wrong → an answer with that mistake.
WRONG: dict[str, dict[str, Callable]] = {
    "length_ratio": {
        "the largest entry for a length": lambda p, w: p.abs().max() / w.abs().max(),
        "the length along w": lambda p, w: (p @ w) / (w @ w),
        "one entry only": lambda p, w: p[0] / w[0],
        "a difference": lambda p, w: p.norm() - w.norm(),
        "the length of the ratio": lambda p, w: (p / w).norm(),
    },
    "svd_terms": {
        "the first two only": lambda W: CHECKS["svd_terms"].solution(W)[:2],
        "their sum": lambda W: W,
        "columns": lambda W: torch.stack([W * (torch.arange(W.shape[1]) == j) for j in range(min(W.shape))]),
        "equal parts": lambda W: W.expand(min(W.shape), *W.shape) / min(W.shape),
        "transposed": lambda W: CHECKS["svd_terms"].solution(W).transpose(1, 2),
        "in rising order": lambda W: CHECKS["svd_terms"].solution(W).flip(0),
    },
    "terms_used": {
        "tolerance 0.1": lambda P, tolerance: (P.norm(dim=1) > 0.1).sum(dim=0),
        "tolerance 0.5": lambda P, tolerance: (P.norm(dim=1) > 0.5).sum(dim=0),
        "largest entry": lambda P, tolerance: (P.abs().amax(dim=1) > tolerance).sum(dim=0),
        "signed sum": lambda P, tolerance: (P.sum(dim=1) > tolerance).sum(dim=0),
        "no root": lambda P, tolerance: (P.square().sum(dim=1) > tolerance).sum(dim=0),
        "two rows": lambda P, tolerance: (P[:, :2].norm(dim=1) > tolerance).sum(dim=0),
        "the first term": lambda P, tolerance: (P[0].norm(dim=0) > tolerance).int(),
        "not longer": lambda P, tolerance: (P.norm(dim=1) <= tolerance).sum(dim=0),
    },
    "weight_gradient": {
        "a mean": lambda g, x: torch.outer(g, x) / len(g),
        "signs of x": lambda g, x: torch.outer(g, x.sign()),
        "sizes": lambda g, x: torch.outer(g, x).abs(),
        "a sum": lambda g, x: g[:, None] + x,
        "direction of x": lambda g, x: torch.outer(g, x / x.norm()),
    },
    "mechanism": {
        "the first column": lambda W, c: W * (torch.arange(W.shape[1]) == 0),
        "the last column": lambda W, c: W * (torch.arange(W.shape[1]) == W.shape[1] - 1),
        "counted from the end": lambda W, c: W * (torch.arange(W.shape[1]) == W.shape[1] - 1 - c),
        "all up to c": lambda W, c: W * (torch.arange(W.shape[1]) <= c),
        "everywhere": lambda W, c: W[:, [c]].expand_as(W),
        "five columns": lambda W, c: W * torch.eye(5)[c],
        "sizes": lambda W, c: (W * (torch.arange(W.shape[1]) == c)).abs(),
    },
    "tms_output": {
        "absolute value": lambda W, b, x: (x @ W.T @ W + b).abs(),
        "below one": lambda W, b, x: (x @ W.T @ W + b).clamp(0, 1),
        "bias twice": lambda W, b, x: relu(x @ W.T @ W + 2 * b),
        "one row": lambda W, b, x: tms(W, b, x[0]).expand_as(x),
        "the skip": lambda W, b, x: relu(x @ W.T @ W + x + b),
        "no bias for the first": lambda W, b, x: relu(x @ W.T @ W + b * (torch.arange(len(b)) > 0)),
        "softplus": lambda W, b, x: F.softplus(x @ W.T @ W + b),
    },
    "naive_loss": {
        "p squared": lambda n, m, p: (1 - m / n) * p**2 / 6,
        "half have a neuron": lambda n, m, p: p / 12,
        "upside down": lambda n, m, p: (n / m - 1) * p / 6,
        "a quarter": lambda n, m, p: (1 - m / n) * p / 4,
        "whole division": lambda n, m, p: (n - m) // n * p / 6,
        "one share of features for one p": lambda n, m, p: (1 - m / n) * 0.01 / 6,
    },
    "neurons_add": {
        "feature 0": lambda W_E, W_in, W_out, W_U, i, v: (W_U[0] @ W_out) * relu(v * (W_in @ W_E[:, 0])),
        "output 0": lambda W_E, W_in, W_out, W_U, i, v: (W_U[0] @ W_out) * relu(v * (W_in @ W_E[:, i])),
        "a row of W_E": lambda W_E, W_in, W_out, W_U, i, v: (W_U[i] @ W_out) * relu(v * (W_in @ W_E[i])),
        "a column of W_U": lambda W_E, W_in, W_out, W_U, i, v: (W_U[:, i] @ W_out) * relu(v * (W_in @ W_E[:, i])),
        "ReLU of the value": lambda W_E, W_in, W_out, W_U, i, v: (W_U[i] @ W_out) * relu(W_in @ W_E[:, i]) * max(v, 0),
        "absolute value": lambda W_E, W_in, W_out, W_U, i, v: (W_U[i] @ W_out) * (v * (W_in @ W_E[:, i])).abs(),
        "ReLU of the stream": lambda W_E, W_in, W_out, W_U, i, v: (W_U[i] @ W_out) * (W_in @ relu(v * W_E[:, i])),
        "size of the value": lambda W_E, W_in, W_out, W_U, i, v: (W_U[i] @ W_out) * relu(abs(v) * (W_in @ W_E[:, i])),
    },
    "ramp_weights": {
        "signs": lambda F, step: -CHECKS["ramp_weights"].solution(F, step),
        "step 5/9": lambda F, step: CHECKS["ramp_weights"].solution(F, 5 / 9),
        "F(0) not divided": lambda F, step: (
            CHECKS["ramp_weights"].solution(F, step) * 1.0 - (torch.arange(len(F)) == 0) * F[0] * (1 / step - 1)
        ),
        "the step times": lambda F, step: CHECKS["ramp_weights"].solution(F, 1 / step),
        "flat at the end": lambda F, step: torch.cat([CHECKS["ramp_weights"].solution(F, step)[:-1], tensor([0.0])]),
        "the second does not undo": lambda F, step: (
            torch.diff(F, prepend=torch.zeros(1)) / step
            - torch.cat([torch.zeros(2), torch.diff(F)[:-1] / step])[: len(F)]
        ),
    },
    "mixing_matrix": {
        "four features": lambda W: torch.eye(4) - W.T @ W,
        "sizes": lambda W: (torch.eye(W.shape[1]) - W.T @ W).abs(),
        "upper half": lambda W: (torch.eye(W.shape[1]) - W.T @ W).triu(),
        "twice": lambda W: 2 * (torch.eye(W.shape[1]) - W.T @ W),
        "ReLU": lambda W: relu(torch.eye(W.shape[1]) - W.T @ W),
        "half of the identity": lambda W: torch.eye(W.shape[1]) / 2 - W.T @ W,
    },
    "best_offset": {
        "fifty": lambda p, d: CHECKS["best_offset"].solution(p, 50),
        "mean not squared": lambda p, d: p / 4 * (d * p / 4) / (d * (p / 6 - p * p / 16) + d * p / 4),
        "one variance": lambda p, d: p / 4 * (d * p / 4) / (p / 6 - p * p / 16 + (d * p / 4) ** 2),
        "one mean": lambda p, d: p / 4 * (d * p / 4) / (d * (p / 6 - p * p / 16) + (p / 4) ** 2),
        "mean of r only": lambda p, d: p / 4 / (d * (p / 6 - p * p / 16) + (d * p / 4) ** 2),
        "one over d": lambda p, d: p / 4 * (p / 4) / (d * (p / 6 - p * p / 16) + (d * p / 4) ** 2),
        "without pairs": lambda p, d: 1.5 * p / 4,
    },
    "project": {
        "one": lambda M, k: torch.outer(eigenvectors(M)[:, -1], eigenvectors(M)[:, -1]),
        "all": lambda M, k: torch.eye(len(M)),
        "one more": lambda M, k: eigenvectors(M)[:, -k - 1 :] @ eigenvectors(M)[:, -k - 1 :].T,
        "the vectors": lambda M, k: eigenvectors(M)[:, -k:],
        "the other way round": lambda M, k: eigenvectors(M)[:, -k:].T @ eigenvectors(M)[:, -k:],
        "the rest": lambda M, k: torch.eye(len(M)) - CHECKS["project"].solution(M, k),
        "axes": lambda M, k: torch.diag((torch.arange(len(M)) >= len(M) - k).float()),
        "positive ones": lambda M, k: (
            eigenvectors(M) @ torch.diag((torch.linalg.eigvalsh(M) > 0).float()) @ (eigenvectors(M).T)
        ),
    },
    "description_length": {
        "five": lambda active, ranks, alpha: bits(active, ranks, alpha, math.log2(5)),
        "whole bits": lambda active, ranks, alpha: bits(active, ranks, alpha, math.ceil(math.log2(len(ranks)))),
        "all ranks": lambda active, ranks, alpha: bits(active, ranks, alpha, math.log2(ranks.sum())),
        "one bit a number": lambda active, ranks, alpha: bits(active, ranks, 1.0, math.log2(len(ranks))),
        "mean over components": lambda active, ranks, alpha: (
            bits(active, ranks, alpha, math.log2(len(ranks))) / len(ranks)
        ),
        "α for names": lambda active, ranks, alpha: bits(active, ranks, alpha, alpha * math.log2(len(ranks))),
        "one input": lambda active, ranks, alpha: bits(active[:1], ranks, alpha, math.log2(len(ranks))),
        "one name": lambda active, ranks, alpha: bits(active, ranks, alpha, 0.0) + math.log2(len(ranks)),
        "mean rank": lambda active, ranks, alpha: bits(active, ranks.mean() + 0 * ranks, alpha, math.log2(len(ranks))),
    },
    "merge_threshold": {
        "independent": lambda p1, p2, p12, C: p1 * p2 * math.log2(C) / (p1 + p2 - 2 * p1 * p2),
        "p1 twice": lambda p1, p2, p12, C: p12 * math.log2(C) / (2 * p1 - 2 * p12),
        "without overlap": lambda p1, p2, p12, C: p12 * math.log2(C) / (p1 + p2),
        "sixteen": lambda p1, p2, p12, C: p12 * 4 / (p1 + p2 - 2 * p12),
        "C itself": lambda p1, p2, p12, C: p12 * C / (p1 + p2 - 2 * p12),
        "both names": lambda p1, p2, p12, C: (p1 + p2) * math.log2(C) / (p1 + p2 - 2 * p12),
        "whole bits": lambda p1, p2, p12, C: p12 * math.ceil(math.log2(C)) / (p1 + p2 - 2 * p12),
    },
    "true_schatten": {
        "half the power": lambda P, p: svd(P).pow(p / 2).sum(),
        "p = 0.5": lambda P, p: svd(P).pow(0.5).sum(),
        "the mean": lambda P, p: svd(P).pow(p).mean(),
        "the largest": lambda P, p: svd(P)[0] ** p,
        "the first two": lambda P, p: svd(P)[:2].pow(p).sum(),
        "columns": lambda P, p: P.norm(dim=0).pow(p).sum(),
        "the rank": lambda P, p: torch.linalg.matrix_rank(P),
        "Frobenius": lambda P, p: P.norm() ** p,
        "products": lambda P, p: p * svd(P).sum(),
    },
    "ablation_effect": {
        "added": lambda W, b, P, x: (tms(W, b, x) - tms(W + P, b, x)).square().mean().sqrt(),
        "signed mean": lambda W, b, P, x: (tms(W, b, x) - tms(W - P, b, x)).mean().square().sqrt(),
        "the largest": lambda W, b, P, x: (tms(W, b, x) - tms(W - P, b, x)).abs().max(),
        "five outputs": lambda W, b, P, x: (tms(W, b, x) - tms(W - P, b, x)).norm() / 5**0.5,
        "the other use": lambda W, b, P, x: (tms(W, b, x) - relu((W - P).T @ W @ x + b)).square().mean().sqrt(),
        "hidden": lambda W, b, P, x: (P @ x).square().mean().sqrt(),
        "mean over hidden": lambda W, b, P, x: (tms(W, b, x) - tms(W - P, b, x)).norm() / len(W) ** 0.5,
        "a bias for one": lambda W, b, P, x: (tms(W, b, x) - tms(W - P, 0 * b, x)).square().mean().sqrt(),
        "effect of P alone": lambda W, b, P, x: tms(P, b, x).square().mean().sqrt(),
    },
    "eq_10": {
        "six": lambda E, W: E + (W - E.sum(dim=0)) / 6,
        "two": lambda E, W: E + (W - E.sum(dim=0)) / 2,
        "C - 1": lambda E, W: E + (W - E.sum(dim=0)) / (len(E) - 1),
        "scaled": lambda E, W: E * (W / E.sum(dim=0)),
        "the mean": lambda E, W: E + (W - E.mean(dim=0)) / len(E),
        "first": lambda E, W: torch.cat([(W - E[1:].sum(dim=0))[None], E[1:]]),
        "the sum": lambda E, W: (E + (W - E.sum(dim=0)) / len(E)).sum(dim=0),
        "a number": lambda E, W: E + (W - E.sum(dim=0)).mean() / len(E),
    },
    "on_the_curve": {
        "squared": lambda P, s, t: torch.einsum("c,cij->ij", s + (1 - s) * (1 - t) ** 2, P),
        "halfway": lambda P, s, t: torch.einsum("c,cij->ij", s + (1 - s) * 0.5, P),
        "a step": lambda P, s, t: torch.einsum("c,cij->ij", s + (1 - s) * float(t < 0.5), P),
        "the mean": lambda P, s, t: torch.einsum("c,cij->ij", 1 - t * (1 - s), P) / len(P),
        "not added up": lambda P, s, t: (1 - t * (1 - s))[:, None, None] * P,
        "only active": lambda P, s, t: torch.einsum("c,cij->ij", s * (1 - t), P),
        "the start": lambda P, s, t: P.sum(dim=0),
        "growing": lambda P, s, t: torch.einsum("c,cij->ij", 1 - t + s, P),
    },
    "batch_top_k": {
        "above the mean": lambda A, k: (A.mean() < A).float(),
        "one more": lambda A, k: top(A, k + 1),
        "one less": lambda A, k: top(A, k) - (top(A, k) - top(A, k - 1) if k > 1 else 0),
        "k - 1": lambda A, k: ((A.flatten().topk(k).values[-1] < A) & (A > 0)).float(),
        "zeros": lambda A, k: (A.flatten().topk(k).values[-1] <= A).float(),
        "k rows": lambda A, k: (A > 0).float() * (torch.arange(len(A)) < k)[:, None],
        "four": lambda A, k: top(A, 4),
        "three by five": lambda A, k: top(A, k).view(3, 5),
        "small ones": lambda A, k: top(A, k, floor=0.5),
        "off and on": lambda A, k: 1 - top(A, k),
        "first in each row": lambda A, k: F.one_hot(A.argmax(dim=1), A.shape[1]),
        "all in one": lambda A, k: top(A, k).flatten(),
    },
    "attribution": {
        "ReLU": lambda W, b, P, x: relu(P.T @ W @ x + W.T @ P @ x).square().mean().sqrt(),
        "wrong bias": lambda W, b, P, x: slope(W, -b, P, x).square().mean().sqrt(),
        "signed mean": lambda W, b, P, x: slope(W, b, P, x).mean().abs(),
        "difference of both": lambda W, b, P, x: (
            ((P.T @ W @ x - W.T @ P @ x) * (W.T @ W @ x + b > 0)).square().mean().sqrt()
        ),
        "per length": lambda W, b, P, x: slope(W, b, P / P.norm(), x).square().mean().sqrt(),
        "the largest": lambda W, b, P, x: slope(W, b, P, x).abs().max(),
        "five outputs": lambda W, b, P, x: slope(W, b, P, x).norm() / 5**0.5,
        "half a step": lambda W, b, P, x: ((tms(W + P / 2, b, x) - tms(W, b, x)) * 2).square().mean().sqrt(),
        "weighted by the output": lambda W, b, P, x: (slope(W, b, P, x) * tms(W, b, x)).square().mean().sqrt(),
        "at P": lambda W, b, P, x: slope(P, b, P, x).square().mean().sqrt(),
        "per output": lambda W, b, P, x: slope(W, b, P, x).abs(),
    },
    "schatten": {
        "U only": lambda U, V, p: U.norm(dim=1).pow(p).sum(dim=-1),
        "V only": lambda U, V, p: V.norm(dim=2).pow(p).sum(dim=-1),
        "half the power": lambda U, V, p: (U.norm(dim=1) * V.norm(dim=2)).pow(p / 2).sum(dim=-1),
        "the mean": lambda U, V, p: (U.norm(dim=1) * V.norm(dim=2)).pow(p).mean(dim=-1),
        "the product": lambda U, V, p: svd(U @ V).pow(p).sum(dim=-1),
        "a sum of lengths": lambda U, V, p: (U.norm(dim=1) + V.norm(dim=2)).pow(p).sum(dim=-1),
        "the whole of each": lambda U, V, p: (U.flatten(1).norm(dim=1) * V.flatten(1).norm(dim=1)).pow(p),
        "over components": lambda U, V, p: (U.norm(dim=1) * V.norm(dim=2)).pow(p).sum(dim=0),
        "power of one": lambda U, V, p: (U.norm(dim=1).pow(p) * V.norm(dim=2)).sum(dim=-1),
        "with a root": lambda U, V, p: (U.norm(dim=1) * V.norm(dim=2)).pow(p).sum(dim=-1).pow(1 / p),
    },
    "scrub_mask": {
        "always keep": lambda half, own, keep: half | own,
        "never keep": lambda half, own, keep: half & ~own,
        "own alone": lambda half, own, keep: own if keep else ~own,
        "both": lambda half, own, keep: half & own,
        "own off only": lambda half, own, keep: own if keep else half & ~own,
        "the other half": lambda half, own, keep: ~half | own if keep else ~half & ~own,
        "off and on": lambda half, own, keep: ~(half | own if keep else half & ~own),
        "sum": lambda half, own, keep: half.int() + own.int() if keep else half.int() - own.int(),
    },
    "contribution": {
        "feature 0": lambda W_E, P_in, P_out, W_U, i: (W_U[0] @ P_out) * (P_in @ W_E[:, 0]),
        "a row of W_E": lambda W_E, P_in, P_out, W_U, i: (W_U[i] @ P_out) * (P_in @ W_E[i]),
        "a column of W_U": lambda W_E, P_in, P_out, W_U, i: (W_U[:, i] @ P_out) * (P_in @ W_E[:, i]),
        "sizes": lambda W_E, P_in, P_out, W_U, i: ((W_U[i] @ P_out) * (P_in @ W_E[:, i])).abs(),
        "ReLU": lambda W_E, P_in, P_out, W_U, i: (W_U[i] @ P_out) * relu(P_in @ W_E[:, i]),
        "transposed": lambda W_E, P_in, P_out, W_U, i: (P_in @ W_U[i]) * (P_out.T @ W_E[:, i]),
        "positive": lambda W_E, P_in, P_out, W_U, i: relu((W_U[i] @ P_out) * (P_in @ W_E[:, i])),
    },
    "count_doubled": {
        "three or more": lambda A: int((torch.bincount(A.argmax(dim=1)) > 2).sum()),
        "large ones": lambda A: int(((A > 0.5).sum(dim=0) > 1).sum()),
        "smallest": lambda A: int((torch.bincount(A.argmin(dim=1)) > 1).sum()),
        "of those in use": lambda A: A.shape[1] - len(A.argmax(dim=1).unique()),
        "whether any": lambda A: (torch.bincount(A.argmax(dim=1)) > 1).any(),
        "the largest group": lambda A: torch.bincount(A.argmax(dim=1)).max(),
        "first component": lambda A: int((A.argmax(dim=1) == 0).sum() > 1),
    },
    "layer_shares": {
        "softmax": lambda A, n: A.clamp(min=0).unflatten(1, (n, -1)).sum(dim=2).softmax(dim=1),
        "two layers": lambda A, n: kept(A.clamp(min=0).unflatten(1, (2, -1)).sum(dim=2)),
        "counts": lambda A, n: kept((A > 0).float().unflatten(1, (n, -1)).sum(dim=2)),
        "squares": lambda A, n: kept(A.clamp(min=0).square().unflatten(1, (n, -1)).sum(dim=2)),
        "negative ones": lambda A, n: kept(A.clamp(max=0).unflatten(1, (n, -1)).sum(dim=2)),
        "the largest": lambda A, n: kept(A.clamp(min=0).unflatten(1, (n, -1)).amax(dim=2)),
        "of all": lambda A, n: A.clamp(min=0).unflatten(1, (n, -1)).sum(dim=2) / A.clamp(min=0).sum(),
        "of sizes": lambda A, n: A.clamp(min=0).unflatten(1, (n, -1)).sum(dim=2) / A.abs().sum(dim=1, keepdim=True),
        "transposed": lambda A, n: kept(A.clamp(min=0).unflatten(1, (n, -1)).sum(dim=2)).T,
    },
    "kept_by_rank": {
        "rank one": lambda P, rank: svd(P)[0] ** 2 / P.square().sum(),
        "one more": lambda P, rank: svd(P)[: rank + 1].square().sum() / P.square().sum(),
        "rows": lambda P, rank: P[:rank].square().sum() / P.square().sum(),
        "entries": lambda P, rank: P.square().flatten().topk(rank).values.sum() / P.square().sum(),
        "longest rows": lambda P, rank: P.square().sum(dim=1).topk(rank).values.sum() / P.square().sum(),
        "over the largest": lambda P, rank: svd(P)[:rank].square().sum() / svd(P)[0] ** 2,
        "share of ranks": lambda P, rank: rank / min(P.shape),
    },
    "relative_error": {
        "the mean of ratios": lambda y, t: ((y - t).square() / (t.square() + 1e-3)).mean(),
        "the largest": lambda y, t: (y - t).abs().max() / t.abs().max(),
        "twenty": lambda y, t: (y - t).square().sum() / 20 / t.square().mean(),
        "sum and mean": lambda y, t: (y - t).square().sum() / t.square().mean(),
        "signed": lambda y, t: (y - t).mean() / t.mean(),
        "both": lambda y, t: (y - t).square().mean() / (y.square().mean() + t.square().mean()),
        "a difference of squares": lambda y, t: (y.square() - t.square()).mean() / t.square().mean(),
    },
    "waking_share": {
        "half": lambda t: 0.5,
        "at least half": lambda t: max(0.5, 5 / (10 - t)),
        "linear": lambda t: 0.5 + t / 20,
        "size of t": lambda t: 5 / (10 - abs(t)),
        "twice t": lambda t: 5 / (10 - 2 * t),
        "the mean x": lambda t: 5 / (7.5 - t),
        "the reach": lambda t: 10 - t,
    },
    "purity": {
        "function 0": lambda P, owner, i: P.square()[owner == 0].sum() / P.square().sum(),
        "others": lambda P, owner, i: P.square()[owner != i].sum() / P.square().sum(),
        "up to i": lambda P, owner, i: P.square()[(owner <= i) & (owner >= 0)].sum() / P.square().sum(),
        "means": lambda P, owner, i: P.square()[owner == i].sum() / len(P[owner == i]) / P.square().mean(),
        "signed": lambda P, owner, i: P[owner == i].sum() / P.sum(),
        "lengths": lambda P, owner, i: P[owner == i].norm() / P.norm(),
        "against others": lambda P, owner, i: P.square()[owner == i].sum() / P.square()[owner != i].sum(),
    },
}


@pytest.mark.parametrize(("name", "mistake"), [(name, mistake) for name in WRONG for mistake in WRONG[name]])
def test_a_wrong_answer_is_not_accepted(name: str, mistake: str):
    verdict = CHECKS[name].verdict(WRONG[name][mistake])
    assert not verdict.startswith("correct")
    assert "\n" not in verdict
