"""Each condition in an exercise's text: an answer that breaks this one alone is wrong, whatever else it does right.

The usual mistakes are the checks' own slips (see test_checks.py); these are others, and answers that fit
some inputs only. This file has notebooks 11 to 17.
"""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import tensor

from pd_helpers.checks import CHECKS

svd = torch.linalg.svdvals


def relu(x):
    return x.clamp(min=0)


def cosines(P, Q):
    return F.normalize(P.flatten(1), dim=1) @ F.normalize(Q.flatten(1), dim=1).T


def assigned(table, maximize=True):
    return linear_sum_assignment(table.numpy(), maximize=maximize)


def scored(forward, masks, labels):
    return (forward(masks).argmax(dim=1) == labels).double().mean()


def above(g, limit):
    return {name: (values > limit).float() for name, values in g.items()}


def bent(x, start, slope):
    return torch.where(x > 1, start + slope * (x - 1), x.clamp(min=0))


def squares(targets, sums):
    return [(targets[name] - sums[name]).square() for name in targets]


def passing(b, d, k, limits, test=lambda d, k, limits: d <= limits[0] and k <= limits[1]):
    return [x for x, *values in zip(b, d, k, strict=True) if test(*values, limits)]


def basis(A):
    return torch.linalg.qr(A).Q


def matched(P, Q):
    return cosines(P, Q)[assigned(cosines(P, Q))].sort(descending=True).values


def shared(on):
    on = on.double()
    return on.T @ on / on.sum(dim=0)[:, None]


def off_pattern(g, high, low):
    return int((g.diagonal() < high).sum() + (g > low).sum() - (g.diagonal() > low).sum())


def kendall(a, b):
    n = len(a)
    return ((a[:, None] - a).sign() * (b[:, None] - b).sign()).sum() / (n * (n - 1))


def ranked(e, m):
    ranks = e.argsort(stable=True).argsort()[m].double()
    return (ranks.sum() - len(ranks) * (len(ranks) - 1) / 2) / (len(ranks) * (len(e) - len(ranks)))


def anywhere(on):
    return on.reshape(len(on), -1, on.shape[-1]).any(dim=1).sum(dim=-1)


# Check → what is wrong → an answer with that mistake.
WRONG: dict[str, dict[str, Callable]] = {
    "lp_minimality": {
        "twenty": lambda A, p, n: A.pow(p).sum() / 20,
        "p = 0.5": lambda A, p, n: A.pow(0.5).sum() / n,
        "the mean": lambda A, p, n: A.pow(p).mean(),
        "the largest": lambda A, p, n: A.pow(p).amax(dim=1).sum() / n,
        "the other power": lambda A, p, n: A.pow(1 / p).sum() / n,
        "the norm": lambda A, p, n: A.pow(p).sum(dim=1).pow(1 / p).sum() / n,
        "how many": lambda A, p, n: (A > 0).sum() / n,
        "a product": lambda A, p, n: p * A.sum() / n,
    },
    "in_pieces": {
        "simplicity before": lambda a, length, p, n: (n * (a / n) ** p, a**p * length),
        "length twice": lambda a, length, p, n: (n * (a / n) ** p, n * (a / n) ** p * (length / n) ** 2),
        "a power of n": lambda a, length, p, n: (n**p * a**p, n**p * a**p * length / n),
        "p = 0.5": lambda a, length, p, n: (n * (a / n) ** 0.5, (a / n) ** 0.5 * length),
        "four": lambda a, length, p, n: (4 * (a / 4) ** p, (a / 4) ** p * length),
        "a power of the length": lambda a, length, p, n: (n * (a / n) ** p, n * (a / n) ** p * (length / n) ** p),
        "without n": lambda a, length, p, n: (n * (a / n) ** p, (a / n) ** p * length / n),
        "minimality alone": lambda a, length, p, n: n * (a / n) ** p,
    },
    "own_columns": {
        "0.4": lambda shares: int(((shares > 0.4).sum(dim=1) == 1).sum()),
        "0.48": lambda shares: int(((shares > 0.48).sum(dim=1) == 1).sum()),
        "0.55": lambda shares: int(((shares > 0.55).sum(dim=1) == 1).sum()),
        "0.9": lambda shares: int(((shares >= 0.9).sum(dim=1) == 1).sum()),
        "columns with one owner": lambda shares: int(((shares > 0.5).sum(dim=0) == 1).sum()),
        "a quarter": lambda shares: int(((shares > 0.25).sum(dim=1) == 1).sum()),
        "entries": lambda shares: int((shares > 0.5).sum()),
        "two or more": lambda shares: int(((shares > 0.5).sum(dim=1) > 1).sum()),
        "not two": lambda shares: int(((shares > 0.5).sum(dim=1) <= 1).sum()),
        "largest in its column": lambda shares: int(((shares == shares.amax(dim=0)).sum(dim=1) == 1).sum()),
    },
    "faithfulness": {
        "two names": lambda W, S: sum((W[n] - S[n]).square().sum() for n in ("W_in", "W_out")) / 55,
        "fifty-five": lambda W, S: sum(e.sum() for e in squares(W, S)) / 55,
        "the last": lambda W, S: squares(W, S)[-1].mean(),
        "without the last": lambda W, S: torch.cat([e.flatten() for e in squares(W, S)[: max(1, len(W) - 1)]]).mean(),
        "matrices": lambda W, S: sum(e.sum() for e in squares(W, S)) / len(W),
        "rows": lambda W, S: sum(e.sum() for e in squares(W, S)) / sum(len(e) for e in W.values()),
        "signed": lambda W, S: torch.cat([(W[n] - S[n]).flatten() for n in W]).mean().square(),
        "relative": lambda W, S: sum(e.sum() for e in squares(W, S)) / sum(w.square().sum() for w in W.values()),
        "the worst": lambda W, S: torch.stack([e.mean() for e in squares(W, S)]).max(),
        "sorted": lambda W, S: torch.cat(
            [(W[a] - S[b]).square().flatten() for a, b in zip(sorted(W), list(S), strict=True)]
        ).mean(),
    },
    "gate": {
        "approximate": lambda h, w, b, v, c: (F.gelu(h[:, :, None] * w + b, approximate="tanh") * v).sum(dim=2) + c,
        "SiLU": lambda h, w, b, v, c: (F.silu(h[:, :, None] * w + b) * v).sum(dim=2) + c,
        "two GELUs": lambda h, w, b, v, c: F.gelu((F.gelu(h[:, :, None] * w + b) * v).sum(dim=2) + c),
        "w_out missing": lambda h, w, b, v, c: F.gelu(h[:, :, None] * w + b).sum(dim=2) + c,
        "b_out twice": lambda h, w, b, v, c: (F.gelu(h[:, :, None] * w + b) * v).sum(dim=2) + 2 * c,
        "w_in for w_out": lambda h, w, b, v, c: (F.gelu(h[:, :, None] * w + b) * w).sum(dim=2) + c,
        "one row": lambda h, w, b, v, c: ((F.gelu(h[:1, :, None] * w + b) * v).sum(dim=2) + c).expand_as(h),
        "the other way round": lambda h, w, b, v, c: (F.gelu(h.T[:, :, None] * w + b) * v).sum(dim=2) + c,
        "the first unit": lambda h, w, b, v, c: F.gelu(h * w[:, 0] + b[:, 0]) * v[:, 0] + c,
        "a sum over pieces": lambda h, w, b, v, c: ((F.gelu(h[:, :, None] * w + b) * v).sum(dim=2) + c).sum(dim=1),
        "a gate between 0 and 1": lambda h, w, b, v, c: ((F.gelu(h[:, :, None] * w + b) * v).sum(2) + c).sigmoid(),
    },
    "upper_leaky": {
        "0.02": lambda x: bent(x, 1.0, 0.02),
        "0.011": lambda x: bent(x, 1.0, 0.011),
        "a jump of 0.01": lambda x: bent(x, 1.01, 0.01),
        "slope down": lambda x: bent(x, 1.0, -0.01),
        "one row": lambda x: bent(x.flatten(), 1.0, 0.01),
        "up to 10": lambda x: bent(x.clamp(max=10), 1.0, 0.01),
        "1 below 0": lambda x: torch.where(x < 0, 1.0, bent(x, 1.0, 0.01)),
        "absolute": lambda x: bent(x.abs(), 1.0, 0.01),
        "up to 2": lambda x: torch.where(x > 2, 2 + 0.01 * (x - 2), x.clamp(min=0)),
        "a sum": lambda x: bent(x, 1.0, 0.01).sum(),
    },
    "recon_layerwise": {
        "three names": lambda f, masks, y: sum((f({n: masks[n]}) - y).square().mean() for n in masks) / 3,
        "two uses": lambda f, masks, y: sum((f({n: masks[n]}) - y).square().mean() for n in masks) / 2,
        "named": lambda f, masks, y: (f({"first": masks["first"]}) - y).square().mean(),
        "the last": lambda f, masks, y: (f(dict([list(masks.items())[-1]])) - y).square().mean(),
        "root": lambda f, masks, y: sum((f({n: m}) - y).square().mean().sqrt() for n, m in masks.items()) / len(masks),
        "sizes": lambda f, masks, y: sum((f({n: m}) - y).abs().mean() for n, m in masks.items()) / len(masks),
        "against all masked": lambda f, masks, y: (
            sum((f({n: m}) - f(masks)).square().mean() for n, m in masks.items()) / len(masks)
        ),
        "the worst": lambda f, masks, y: max((f({n: m}) - y).square().mean() for n, m in masks.items()),
        "rows": lambda f, masks, y: sum((f({n: m}) - y).square().sum() for n, m in masks.items()) / len(y) / len(masks),
        "half a mask": lambda f, masks, y: (
            sum((f({n: m / 2}) - y).square().mean() for n, m in masks.items()) / len(masks)
        ),
        "no mask": lambda f, masks, y: (f({}) - y).square().mean(),
    },
    "importance_minimality": {
        "six rows": lambda g, p: g.pow(p).sum() / 6,
        "four pieces": lambda g, p: 4 * g.pow(p).mean(),
        "p = 2": lambda g, p: g.square().sum(dim=1).mean(),
        "the norm": lambda g, p: g.pow(p).sum(dim=1).pow(1 / p).mean(),
        "the largest": lambda g, p: g.pow(p).amax(dim=1).mean(),
        "how many": lambda g, p: (g > 0.1).float().sum(dim=1).mean(),
        "a product": lambda g, p: p * g.sum(dim=1).mean(),
        "after the mean": lambda g, p: g.mean(dim=0).pow(p).sum(),
        "each input": lambda g, p: g.pow(p).sum(dim=1),
    },
    "mmcs": {
        "W's lengths only": lambda P, W: ((P * W).sum(1) / W.norm(dim=0).square()).amax(0).mean(),
        "P's lengths only": lambda P, W: ((P * W).sum(1) / P.norm(dim=1).square()).amax(0).mean(),
        "the first": lambda P, W: F.cosine_similarity(P[0], W, dim=0).mean(),
        "the least": lambda P, W: F.cosine_similarity(P, W[None], dim=1).amax(0).min(),
        "the smallest": lambda P, W: F.cosine_similarity(P, W[None], dim=1).amin(0).mean(),
        "over components": lambda P, W: F.cosine_similarity(P, W[None], dim=1).amax(1).mean(),
        "not below 0": lambda P, W: F.cosine_similarity(P, W[None], dim=1).clamp(min=0).sum(0).mean(),
        "squared": lambda P, W: F.cosine_similarity(P, W[None], dim=1).square().amax(0).mean(),
        "longest component": lambda P, W: F.cosine_similarity(
            torch.stack([P[P[:, :, j].norm(dim=1).argmax(), :, j] for j in range(W.shape[1])], dim=1), W, dim=0
        ).mean(),
    },
    "write_directions": {
        "over squared lengths": lambda V: V / V.square().sum(dim=1, keepdim=True),
        "directions of length one": lambda V: F.normalize(V, dim=1),
        "V transposed": lambda V: V.T,
        "two by two": lambda V: tensor([[V[1, 1], -V[1, 0]], [-V[0, 1], V[0, 0]]]) / torch.linalg.det(V),
        "without the determinant": lambda V: torch.linalg.inv(V).T * torch.linalg.det(V),
        "orthogonal": lambda V: torch.linalg.qr(V).Q,
        "sign": lambda V: -torch.linalg.inv(V).T,
        "the identity": lambda V: torch.eye(len(V)),
    },
    "predominant": {
        "largest signed": lambda parts: parts.amax(dim=2).argmax(dim=0),
        "cubes": lambda parts: parts.pow(3).sum(dim=2).argmax(dim=0),
        "size of the sum": lambda parts: parts.sum(dim=2).abs().argmax(dim=0),
        "the first": lambda parts: parts.square().sum(dim=2).argmax(dim=0) * 0,
        "one for all": lambda parts: parts.square().sum(dim=(1, 2)).argmax().expand(parts.shape[1]),
        "neurons": lambda parts: parts.square().sum(dim=0).argmax(dim=1),
        "the first neuron": lambda parts: parts[:, :, 0].square().argmax(dim=0),
        "positive ones": lambda parts: relu(parts).square().sum(dim=2).argmax(dim=0),
        "counted from 1": lambda parts: parts.square().sum(dim=2).argmax(dim=0) + 1,
    },
    "co_activation": {
        "0.05": lambda g: shared(g > 0.05),
        "0.12": lambda g: shared(g > 0.12),
        "0.15": lambda g: shared(g > 0.15),
        "0.5": lambda g: shared(g > 0.5).nan_to_num(),
        "zero diagonal": lambda g: shared(g > 0.1) * (1 - torch.eye(g.shape[1])),
        "of either": lambda g: (
            (g > 0.1).double().T @ (g > 0.1).double() / ((g[:, :, None] > 0.1) | (g[:, None] > 0.1)).sum(dim=0)
        ),
        "cosines": lambda g: F.normalize((g > 0.1).double(), dim=0).T @ F.normalize((g > 0.1).double(), dim=0),
        "whether ever": lambda g: (shared(g > 0.1) > 0).float(),
        "how often the other": lambda g: (g > 0.1).double().mean(dim=0).expand(g.shape[1], -1),
        "of forty rows": lambda g: (g > 0.1).double().T @ (g > 0.1).double() / 40,
    },
    "subspace_overlap": {
        "three": lambda A, B: (basis(A).T @ basis(B)).square().sum() / 3,
        "a root": lambda A, B: (basis(A).T @ basis(B)).norm() / A.shape[1] ** 0.5,
        "the best": lambda A, B: svd(basis(A).T @ basis(B))[0] ** 2,
        "the worst": lambda A, B: svd(basis(A).T @ basis(B))[-1] ** 2,
        "the diagonal": lambda A, B: (basis(A) * basis(B)).sum(dim=0).square().mean(),
        "singular values": lambda A, B: svd(basis(A).T @ basis(B)).mean(),
        "the first": lambda A, B: F.cosine_similarity(A[:, 0], B[:, 0], dim=0) ** 2,
        "entries": lambda A, B: (basis(A).T @ basis(B)).square().mean(),
        "the other one": lambda A, B: (A.T @ basis(B)).square().sum() / A.shape[1],
    },
    "most_on": {
        "whole pieces": lambda n, p, k: int(n * (1 - (1 - p) ** k)),
        "fifty": lambda n, p, k: 50 * (1 - (1 - p) ** k),
        "cut off": lambda n, p, k: n * min(1, p * k),
        "one piece a feature": lambda n, p, k: min(n, p * k),
        "one less": lambda n, p, k: n * (1 - (1 - p) ** (k - 1)),
        "exponential": lambda n, p, k: n * (1 - math.exp(-p * k)),
        "exactly one": lambda n, p, k: n * k * p * (1 - p) ** (k - 1),
        "of features": lambda n, p, k: k * (1 - (1 - p) ** n),
        "all": lambda n, p, k: n,
    },
    "partners": {
        "on or off": lambda g, h: assigned((g > 0.1).float().T @ (h > 0.1).float())[1],
        "centred": lambda g, h: assigned((g - g.mean(0)).T @ (h - h.mean(0)))[1],
        "distances": lambda g, h: assigned(torch.cdist(g.T, h.T), maximize=False)[1],
        "correlations": lambda g, h: assigned(F.normalize(g - g.mean(0), dim=0).T @ F.normalize(h - h.mean(0), dim=0))[
            1
        ],
        "largest": lambda g, h: (g[:, :, None] * h[:, None]).amax(dim=0).argmax(dim=1),
        "smaller of both": lambda g, h: assigned(torch.minimum(g[:, :, None], h[:, None]).sum(dim=0))[1],
        "reversed": lambda g, h: torch.arange(g.shape[1]).flip(0),
        "both": lambda g, h: assigned(g.T @ h),
        "the other's best": lambda g, h: (g.T @ h).argmax(dim=0),
        "counted from 1": lambda g, h: tensor(assigned(g.T @ h)[1]) + 1,
    },
    "misplaced": {
        "diagonal 0.8": lambda g: off_pattern(g, 0.8, 0.1),
        "diagonal 0.5": lambda g: off_pattern(g, 0.5, 0.1),
        "diagonal 0.89": lambda g: off_pattern(g, 0.89, 0.1),
        "diagonal 0.91": lambda g: off_pattern(g, 0.91, 0.1),
        "diagonal 0.95": lambda g: off_pattern(g, 0.95, 0.1),
        "diagonal 1": lambda g: off_pattern(g, 1.0, 0.1),
        "other 0.05": lambda g: off_pattern(g, 0.9, 0.05),
        "other 0.11": lambda g: off_pattern(g, 0.9, 0.11),
        "other 0.12": lambda g: off_pattern(g, 0.9, 0.12),
        "other 0.2": lambda g: off_pattern(g, 0.9, 0.2),
        "other 0.5": lambda g: off_pattern(g, 0.9, 0.5),
        "above the diagonal": lambda g: int((g.diagonal() < 0.9).sum() + (g.triu(1) > 0.1).sum()),
        "below the diagonal": lambda g: int((g.diagonal() < 0.9).sum() + (g.tril(-1) > 0.1).sum()),
        "rows": lambda g: int(((g > 0.1).sum(dim=1) != 1).sum()),
        "largest elsewhere": lambda g: int((g.argmax(dim=1) != torch.arange(len(g))).sum()),
        "a share": lambda g: off_pattern(g, 0.9, 0.1) / g.numel(),
    },
    "starved": {
        "mean below 0.1": lambda sizes: sizes.mean(dim=0) < 0.1,
        "sum below 1e-3": lambda sizes: sizes.sum(dim=0) < 1e-3,
        "below 1e-5": lambda sizes: sizes.amax(dim=0) < 1e-5,
        "median": lambda sizes: sizes.median(dim=0).values == 0,
        "more than half": lambda sizes: (sizes == 0).float().mean(dim=0) > 0.5,
        "least": lambda sizes: sizes.argmin(dim=1),
        "the one with the least": lambda sizes: sizes.sum(dim=0) == sizes.sum(dim=0).max(),
        "how many": lambda sizes: (sizes == 0).all(dim=0).sum(),
        "every third": lambda sizes: torch.arange(sizes.shape[1]) % 3 == 0,
        "which": lambda sizes: (sizes == 0).all(dim=0).nonzero().flatten(),
    },
    "rank_correlation": {
        "Kendall": lambda a, b: kendall(a, b),
        "one ranked": lambda a, b: torch.corrcoef(torch.stack([a.argsort().argsort().float(), b]))[0, 1],
        "size": lambda a, b: torch.corrcoef(torch.stack([a, b]).argsort().argsort().float())[0, 1].abs(),
        "squared": lambda a, b: torch.corrcoef(torch.stack([a, b]).argsort().argsort().float())[0, 1] ** 2,
        "covariance": lambda a, b: torch.cov(torch.stack([a, b]).argsort().argsort().float())[0, 1],
        "nine": lambda a, b: 1 - 6 * (a.argsort().argsort() - b.argsort().argsort()).square().sum() / (9 * 80),
        "same ranks": lambda a, b: (a.argsort().argsort() == b.argsort().argsort()).float().mean(),
        "three times": lambda a, b: torch.corrcoef(torch.stack([a, b]).argsort().argsort().argsort().float())[0, 1],
        "of sizes": lambda a, b: torch.corrcoef(torch.stack([a.abs(), b.abs()]).argsort().argsort().float())[0, 1],
    },
    "separation": {
        "means": lambda e, m: float(e[m].mean() > e[~m].mean()),
        "against the mean": lambda e, m: (e[m] > e[~m].mean()).float().mean(),
        "correct at 0.5": lambda e, m: ((e > 0.5) == m).float().mean(),
        "above all": lambda e, m: (e[m] > e[~m].max()).float().mean(),
        "ties by place": lambda e, m: ranked(e, m),
        "win minus loss": lambda e, m: 2 * CHECKS["separation"].solution(e, m) - 1,
        "near ties": lambda e, m: (0.5 + 0.5 * (e[m][:, None] - e[~m][None]).clamp(-1, 1)).mean(),
        "a quarter for ties": lambda e, m: (
            (e[m][:, None] > e[~m]).float() + 0.25 * (e[m][:, None] == e[~m]).float()
        ).mean(),
        "without ties": lambda e, m: (e[m][:, None] > e[~m])[e[m][:, None] != e[~m]].float().mean(),
    },
    "weighed": {
        "all hold": lambda i: 1,
        "all contradicted": lambda i: 2,
        "nothing decided": lambda i: 3,
        "the first two exchanged": lambda i: {1: 1, 2: 2, 3: 2, 4: 3, 5: 1}[i],
        "the last one open": lambda i: {1: 2, 2: 1, 3: 2, 4: 3, 5: 3}[i],
        "counted from 0": lambda i: {1: 1, 2: 0, 3: 1, 4: 2, 5: 0}[i],
        "none of the three": lambda i: 4,
        "between two": lambda i: 1.5,
    },
    "kinship": {
        "in the table's order": lambda i: i,
        "backwards": lambda i: 6 - i,
        "masks and circuits exchanged": lambda i: {1: 3, 2: 4, 3: 5, 4: 2, 5: 1}[i],
        "quanta and theory exchanged": lambda i: {1: 5, 2: 4, 3: 3, 4: 1, 5: 2}[i],
        "always the same": lambda i: 3,
        "counted from 0": lambda i: {1: 2, 2: 3, 3: 4, 4: 0, 5: 1}[i],
    },
    "important_only": {
        "0.05": lambda f, g, labels: scored(f, above(g, 0.05), labels),
        "0.2": lambda f, g, labels: scored(f, above(g, 0.2), labels),
        "0.15": lambda f, g, labels: scored(f, above(g, 0.15), labels),
        "0.5": lambda f, g, labels: scored(f, above(g, 0.5), labels),
        "the first layer only": lambda f, g, labels: scored(
            f, {n: v if i else (v > 0.1).float() for i, (n, v) in enumerate(g.items())}, labels
        ),
        "for all inputs alike": lambda f, g, labels: scored(
            f, {n: (v.mean(dim=0, keepdim=True) > 0.1).float().expand_as(v) for n, v in g.items()}, labels
        ),
        "one per input": lambda f, g, labels: scored(
            f, {n: F.one_hot(v.argmax(dim=1), v.shape[1]).float() for n, v in g.items()}, labels
        ),
        "named": lambda f, g, labels: scored(f, {n: (g[n] > 0.1).float() for n in ("first", "second")}, labels),
        "percent": lambda f, g, labels: 100 * scored(f, above(g, 0.1), labels),
        "of 60": lambda f, g, labels: scored(f, above(g, 0.1), labels) * len(labels) / 60,
        "least likely": lambda f, g, labels: (f(above(g, 0.1)).argmin(dim=1) == labels).float().mean(),
        "each input": lambda f, g, labels: f(above(g, 0.1)).argmax(dim=1) == labels,
        "against the whole network": lambda f, g, labels: scored(
            f, above(g, 0.1), f({n: torch.ones_like(v) for n, v in g.items()}).argmax(dim=1)
        ),
    },
    "largest_coefficient": {
        "either limit": lambda b, d, k, limits: max(
            passing(b, d, k, limits, lambda d, k, limits: d <= limits[0] or k <= limits[1]), default=0.0
        ),
        "the wrong limits": lambda b, d, k, limits: max(passing(b, d, k, limits[::-1]), default=0.0),
        "one excluded": lambda b, d, k, limits: max(
            passing(b, d, k, limits, lambda d, k, limits: d < limits[0] and k <= limits[1]), default=0.0
        ),
        "the other excluded": lambda b, d, k, limits: max(
            passing(b, d, k, limits, lambda d, k, limits: d <= limits[0] and k < limits[1]), default=0.0
        ),
        "the first": lambda b, d, k, limits: [*passing(b, d, k, limits), 0.0][0],
        "its place": lambda b, d, k, limits: b.index(max(passing(b, d, k, limits), default=b[0])),
        "the smallest if none does": lambda b, d, k, limits: max(passing(b, d, k, limits), default=min(b)),
        "minus one if none does": lambda b, d, k, limits: max(passing(b, d, k, limits), default=-1.0),
        "the largest": lambda b, d, k, limits: max(b),
        "first limit 0.02": lambda b, d, k, limits: max(passing(b, d, k, (0.02, limits[1])), default=0.0),
        "second limit 0.1": lambda b, d, k, limits: max(passing(b, d, k, (limits[0], 0.1)), default=0.0),
        "gains are lost": lambda b, d, k, limits: max(
            passing(b, d, k, limits, lambda d, k, limits: 0 <= d <= limits[0] and k <= limits[1]), default=0.0
        ),
        "how many": lambda b, d, k, limits: len(passing(b, d, k, limits)),
    },
    "subcomponents_per_input": {
        "0.2": lambda g: anywhere(g > 0.2).double().mean(),
        "0.05": lambda g: anywhere(g > 0.05).double().mean(),
        "half of the places": lambda g: (
            ((g > 0.1).double().flatten(1, -2).mean(dim=1) >= 0.5 if g.ndim > 2 else g > 0.1)
            .sum(dim=-1)
            .double()
            .mean()
        ),
        "the first place": lambda g: (g.flatten(1, -2)[:, 0] if g.ndim > 2 else g).gt(0.1).sum(dim=-1).double().mean(),
        "one kind of place": lambda g: (g > 0.1).any(dim=1).sum(dim=-1).double().mean(),
        "the first input": lambda g: anywhere(g > 0.1)[0],
        "each input": lambda g: anywhere(g > 0.1),
        "the busiest place": lambda g: (g > 0.1).sum(dim=-1).flatten(1).amax(dim=1).double().mean(),
        "the median": lambda g: anywhere(g > 0.1).double().median(),
        "places in place of subcomponents": lambda g: (g > 0.1).any(dim=-1).flatten(1).sum(dim=1).double().mean(),
        "rounded": lambda g: anywhere(g > 0.1).double().mean().round(),
        "soft": lambda g: (g.flatten(1, -2).amax(dim=1) if g.ndim > 2 else g).sum(dim=-1).double().mean(),
    },
    "match": {
        "by distance": lambda P, Q: (
            cosines(P, Q)[assigned(torch.cdist(P.flatten(1), Q.flatten(1)), False)].sort(descending=True).values
        ),
        "by products": lambda P, Q: cosines(P, Q)[assigned(P.flatten(1) @ Q.flatten(1).T)].sort(descending=True).values,
        "sizes at the end": lambda P, Q: cosines(P, Q)[assigned(cosines(P, Q))].abs().sort(descending=True).values,
        "the sum": lambda P, Q: cosines(P, Q)[assigned(cosines(P, Q))].sum(),
        "the other's best": lambda P, Q: cosines(P, Q).amax(dim=0).sort(descending=True).values,
        "centred": lambda P, Q: matched(P - P.mean(dim=(1, 2), keepdim=True), Q - Q.mean(dim=(1, 2), keepdim=True)),
        "first column": lambda P, Q: matched(P[:, :, :1], Q[:, :, :1]),
        "squared": lambda P, Q: matched(P, Q).square(),
        "places": lambda P, Q: tensor(assigned(cosines(P, Q))[1]),
        "both": lambda P, Q: cosines(P, Q)[assigned(cosines(P, Q))].sort(descending=True),
        "least": lambda P, Q: cosines(P, Q)[assigned(cosines(P, Q), False)].sort(descending=True).values,
    },
}


@pytest.mark.parametrize(("name", "mistake"), [(name, mistake) for name in WRONG for mistake in WRONG[name]])
def test_a_wrong_answer_is_not_accepted(name: str, mistake: str):
    verdict = CHECKS[name].verdict(WRONG[name][mistake])
    assert not verdict.startswith("correct")
    assert "\n" not in verdict
