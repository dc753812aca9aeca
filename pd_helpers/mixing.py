"""Compressed computation looked at again (Bhagat et al. 2026): a small MLP whose labels hold a mixing matrix M.

    y(x) = ReLU(x) + M x        what an MLP beside a noisy skip connection has to supply; M = I − W_Eᵀ W_E there
    L / p                       loss per feature: mean squared error over outputs, divided by the feature probability

The MLP is W_out ReLU(W_in x), without biases, with fewer neurons than features. Everything here takes many at once, as
a leading dimension of `M`, `W_in` and `W_out`: a sweep is one training run.

Features are on with probability p, and then uniform on [-1, 1]. Inputs with nothing on have no error, whatever the
weights, so none are drawn; the share of those that are left out is put back exactly.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from pd_helpers.training import adamw, generator, learning_rate, progress

if TYPE_CHECKING:
    import pandas

N_FEATURES, N_NEURONS, D_RESID = 100, 50, 1000
SIGMAS = {"none": 0.0, "embedding": D_RESID**-0.5, "flipped": D_RESID**-0.5, "symmetric": 0.033, "asymmetric": 0.025}
"""Kinds of mixing, with the size of M's entries that belongs to each: the embedding's own, and the published ones."""
SPARSE = 0.2
"""Below this feature probability sparse products are quicker."""


class MLP(NamedTuple):
    """W_out ReLU(W_in x) without biases; one, or many with a leading dimension."""

    W_in: Float[Tensor, "*models d n"]
    W_out: Float[Tensor, "*models n d"]

    def __call__(self, x: Float[Tensor, "rows n"]) -> Float[Tensor, "*models rows n"]:
        return torch.relu(x @ self.W_in.mT) @ self.W_out.mT

    def model(self, i: int) -> "MLP":
        """Number i of many."""
        return MLP(self.W_in[i], self.W_out[i])

    @property
    def product(self) -> Float[Tensor, "*models n n"]:
        """W_out W_in: what it does to the features, the ReLU left out."""
        return self.W_out @ self.W_in


# --- Mixing matrices --------------------------------------------------------------------------------------


def mixing_matrix(W_E: Float[Tensor, "d_resid n"]) -> Float[Tensor, "n n"]:
    """I − W_Eᵀ W_E for unit-norm columns: what the skip connection leaves to the MLP, beside ReLU(x).

    The residual MLP answers W_Eᵀ W_E x + MLP(x) where x + ReLU(x) is wanted. Its diagonal is zero.
    """
    overlap = W_E.T @ W_E
    return overlap.diag().diag() - overlap


def mixing(kind: str, sigma: float, *, n: int = N_FEATURES, seed: int = 0) -> Float[Tensor, "n n"]:
    """A random mixing matrix, its entries of standard deviation `sigma`; of one kind and seed, all are in proportion.

    Kinds: "none"; "embedding", I − W_Eᵀ W_E of a random W_E 1,000 wide, whose own sigma is 1/√1000; "flipped", the same
    with the other sign; "symmetric" and "asymmetric", of normal random numbers, diagonal included.
    """
    if kind not in SIGMAS:
        raise ValueError(f"kind must be one of {', '.join(SIGMAS)}, but is {kind!r}; 'symmetric' works")
    draw = generator(seed, "target_init")
    if kind == "none":
        return torch.zeros(n, n)
    if kind in ("embedding", "flipped"):
        W_E = torch.nn.functional.normalize(torch.randn(D_RESID, n, generator=draw), dim=0)
        return (1 if kind == "embedding" else -1) * sigma * D_RESID**0.5 * mixing_matrix(W_E)
    Z = sigma * torch.randn(n, n, generator=draw)
    return Z.triu() + Z.triu(1).T if kind == "symmetric" else Z


# --- Data and loss ----------------------------------------------------------------------------------------


def inputs(p: float, rows: int, draw: Generator, n: int = N_FEATURES) -> Float[Tensor, "rows n"]:
    """Inputs with something on, distributed exactly as such inputs are among all."""
    # The first feature that is on follows a geometric distribution, cut at n; what comes after it is independent.
    u = torch.rand(rows, 1, generator=draw, dtype=torch.float64)
    first = torch.floor(torch.log1p(-u * share_on(p, n)) / torch.log1p(torch.tensor(-p, dtype=torch.float64)))
    place = torch.arange(n)
    on = (place == first) | ((place > first) & (torch.rand(rows, n, generator=draw) < p))
    return torch.where(on, 2 * torch.rand(rows, n, generator=draw) - 1, 0.0)


def share_on(p: float, n: int = N_FEATURES) -> float:
    """The share of inputs on which something is on."""
    return 1 - (1 - p) ** n


def labels(x: Float[Tensor, "rows n"], M: Float[Tensor, "*models n n"]) -> Float[Tensor, "*models rows n"]:
    """ReLU(x) + M x."""
    return torch.relu(x) + x @ M.mT


@torch.no_grad()
def loss_per_feature(
    mlp: MLP, M: Float[Tensor, "*models n n"], p: float, *, rows: int = 100_000, seed: int = 0
) -> Float[Tensor, "*models"]:
    """L / p against the labels of M, on `rows` inputs on which something is on."""
    draw, total = generator(seed, "evaluation"), 0.0
    for n_rows in [10_000] * (rows // 10_000) + [rows % 10_000] * (rows % 10_000 > 0):
        x = inputs(p, n_rows, draw, M.shape[-1])
        total = total + (mlp(x) - labels(x, M)).square().sum(dim=(-2, -1))
    return total / rows / M.shape[-1] * share_on(p, M.shape[-1]) / p


def linear_loss(mlp: MLP, M: Float[Tensor, "*models n n"]) -> Float[Tensor, "*models"]:
    """The linear part of L / p, the same at every p: |I + 2M − W_out W_in|² / (12 n).

    Every function of x is an odd one plus an even one. With ReLU(z) = z/2 + |z|/2, those of the labels are (I/2 + M) x
    and |x|/2, and those of the MLP W_out W_in x / 2 and W_out |W_in x| / 2. As inputs are as often x as −x, the two
    errors add up. The rest of L / p is the nonlinear part, in which M does not occur.
    """
    return (torch.eye(M.shape[-1]) + 2 * M - mlp.product).square().sum(dim=(-2, -1)) / (12 * M.shape[-1])


def linear_bound(M: Float[Tensor, "*models n n"], d: int = N_NEURONS) -> Float[Tensor, "*models"]:
    """The least that `linear_loss` can be with d neurons, W_out W_in having rank d at most (Eckart and Young)."""
    left = torch.linalg.svdvals(torch.eye(M.shape[-1]) + 2 * M)[..., d:]
    return left.square().sum(dim=-1) / (12 * M.shape[-1])


# --- Training ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """How the MLPs are trained; defaults are the paper's but for `rows`."""

    steps: int = 10_000
    rows: int = 512
    """Inputs a step on which something is on. The paper: batches of 2048, of which 1298 are such at p = 0.01."""
    lr: float = 3e-3
    schedule: str = "cosine"
    weight_decay: float = 1e-2


def untrained(models: int, seed: int = 0, n: int = N_FEATURES, d: int = N_NEURONS) -> MLP:
    """`models` MLPs of normal random numbers, all alike."""
    draw = generator(seed, "init")
    W_in, W_out = torch.randn(d, n, generator=draw) / n**0.5, torch.randn(n, d, generator=draw) / d**0.5
    return MLP(*(W.repeat(models, 1, 1) for W in (W_in, W_out)))


def train(
    M: Float[Tensor, "models n n"],
    p: float,
    *,
    start: MLP | None = None,
    settings: Training | None = None,
    seed: int = 0,
) -> Iterator[MLP]:
    """Train one MLP for each M, all on the same inputs; yields them after every step, the very same tensors.

    Each goes the way it would go alone: the losses are added up, and no weight occurs in two of them.

    >>> *_, mlps = mixing.train(M[None], p=0.01)
    """
    settings = settings or Training()
    mlp = MLP(*(nn.Parameter(W.clone()) for W in start or untrained(len(M), seed)))
    optimizer, draw = adamw(mlp, settings.lr, settings.weight_decay), generator(seed, "data")
    for step in range(settings.steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, settings)
        loss = training_loss(mlp, M, inputs(p, settings.rows, draw, M.shape[-1]), p)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield MLP(*(W.detach() for W in mlp))


def training_loss(mlp: MLP, M: Float[Tensor, "models n n"], x: Float[Tensor, "rows n"], p: float) -> Float[Tensor, ""]:
    """The sum over models of L / p on `x`, but for a term without weights.

    With h = ReLU(W_in x) and y the label, |W_out h − y|² = h·(W_outᵀ W_out h − 2 W_outᵀ y) + |y|², and
    W_outᵀ y = W_outᵀ ReLU(x) + (W_outᵀ M) x. So whatever meets x or ReLU(x) is a product with few entries that are
    not zero, outputs are never computed, and what is left is a square of d × d for each model.
    """
    (models, d, n), rows = mlp.W_in.shape, len(x)
    both = torch.cat([x, x.relu()], dim=1)  # (rows, 2n)
    if p < SPARSE:
        x, both = x.to_sparse(), both.to_sparse()
    reads = mlp.W_in.permute(2, 0, 1).reshape(n, models * d)
    wanted = torch.cat([M.mT @ mlp.W_out, mlp.W_out], dim=1).permute(1, 0, 2).reshape(2 * n, models * d)
    h, W_out_y = ((a @ W).view(rows, models, d).transpose(0, 1) for a, W in ((x, reads), (both, wanted)))
    h = h.relu()  # (models, rows, d)
    squares = (h * (h @ (mlp.W_out.mT @ mlp.W_out) - 2 * W_out_y)).sum()
    return squares / rows / n * share_on(p, n) / p


def sweep(
    grid: Mapping[str, Sequence],
    *,
    settings: Training | None = None,
    keep: bool = False,
    rows: int = 1_000_000,
    show_progress: bool = True,
    at_once: int = 16,
) -> "pandas.DataFrame":
    """Train an MLP at every point of a grid over `kind`, and if wanted `sigma`, `p` and `seed`.

    Without `sigma` each kind has its own (`SIGMAS`); without `p` it is 0.01. One row each: the grid's columns, `loss`,
    which is L / p; `linear_loss`, its linear part; `clean_loss`, the same network's L / p against labels without M;
    `seconds`, its share; and `kept`, the weights and M as a dict of tensors, or an empty one if `keep` is False.
    """
    import pandas

    points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    points = [{"sigma": SIGMAS[point["kind"]], "p": 0.01, "seed": 0} | point for point in points]
    together: dict[tuple, list[int]] = {}
    for i, point in enumerate(points):
        together.setdefault((point["p"], point["seed"]), []).append(i)
    groups = [(*key, ids[i : i + at_once]) for key, ids in together.items() for i in range(0, len(ids), at_once)]
    table = [dict[str, object]() for _ in points]
    for p, seed, ids in progress(groups, total=len(groups), description="mixing", show=show_progress, unit="group"):
        began = time.perf_counter()
        M = torch.stack([mixing(points[i]["kind"], points[i]["sigma"], seed=seed) for i in ids])
        *_, mlp = train(M, p, settings=settings, seed=seed)
        loss, clean = (loss_per_feature(mlp, labels_of, p, rows=rows) for labels_of in (M, torch.zeros_like(M)))
        for j, i in enumerate(ids):
            table[i] = points[i] | {"loss": loss[j].item(), "clean_loss": clean[j].item()}
            table[i]["linear_loss"] = linear_loss(mlp, M)[j].item()
            table[i] |= {"seconds": (time.perf_counter() - began) / len(ids), "error": None}
            table[i]["kept"] = {"W_in": mlp.W_in[j], "W_out": mlp.W_out[j], "M": M[j]} if keep else {}
    return pandas.DataFrame(table)


# --- Rivals -----------------------------------------------------------------------------------------------


def naive(n: int = N_FEATURES, d: int = N_NEURONS, offset: float = 0.0) -> MLP:
    """A neuron for each of the first d features; the other outputs get `offset` times the sum of all neurons."""
    eye = torch.eye(n)[:d]
    return MLP(eye, torch.cat([eye[:, :d], torch.full((n - d, d), offset)]))


def naive_loss(M: Float[Tensor, "n n"], d: int = N_NEURONS) -> float:
    """L / p of the naive MLP against the labels of M, at any p; 1/12 without mixing and with half as many neurons."""
    ignored = M.diag()[d:]  # E[(ReLU(x) + m x)²] / p = 1/6 + m/3 + m²/3
    return ((len(ignored) / 6 + ignored.sum() / 3 + M.square().sum() / 3) / len(M)).item()


def best_offset(p: float, d: int = N_NEURONS) -> float:
    """b* = (p/4) E[s] / E[s²], with s the sum of d independent ReLU(x_i)."""
    mean, square = _neuron_sum(p, d)
    return p / 4 * mean / square


def offset_loss(p: float, n: int = N_FEATURES, d: int = N_NEURONS) -> float:
    """L / p of the naive MLP with the best offset against clean labels."""
    mean, square = _neuron_sum(p, d)
    return (n - d) / n * (1 / 6 - p / 16 * mean**2 / square)


def _neuron_sum(p: float, d: int) -> tuple[float, float]:
    """E[s] and E[s²]: a single ReLU(x_i) has the mean p/4 and the mean square p/6."""
    mean = d * p / 4
    return mean, d * (p / 6 - (p / 4) ** 2) + mean**2


def half_fit_loss(M: Float[Tensor, "*models n n"], d: int = N_NEURONS) -> Float[Tensor, "*models"]:
    """L / p, where one feature is on, of the best matrix of rank d for positive inputs and nothing for negative ones.

    Positive e_i want column i of I + M, of which the best rank-d matrix (Eckart and Young) leaves the smaller singular
    values; negative ones want that of −M.
    """
    n = M.shape[-1]
    left = torch.linalg.svdvals(torch.eye(n) + M)[..., d:].square().sum(dim=-1)
    return (left + M.square().sum(dim=(-2, -1))) / (6 * n)


def semi_nmf(A: Float[Tensor, "n n"], d: int = N_NEURONS, steps: int = 500, seed: int = 0) -> MLP:
    """A ≈ W_out W_in with W_in ≥ 0 (Ding, Li and Jordan 2010); scikit-learn's NMF of A's positive part is the start.

    W_out is the least-squares fit to W_in, and W_in moves by their multiplicative rule; in turn.
    """
    from sklearn.decomposition import NMF

    start = NMF(d, init="nndsvda", random_state=seed, max_iter=1000, tol=1e-3).fit(A.clamp(min=0).double().numpy())
    A, W_in = A.double(), torch.from_numpy(start.components_).double() + 1e-3
    for _ in range(steps):
        W_out = torch.linalg.lstsq(W_in.T, A.T).solution.T
        wanted, square = W_out.T @ A, W_out.T @ W_out
        up = wanted.clamp(min=0) + (-square).clamp(min=0) @ W_in
        down = (-wanted).clamp(min=0) + square.clamp(min=0) @ W_in
        W_in = W_in * (up / down.clamp(min=1e-12)).sqrt()
    return MLP(W_in.float(), torch.linalg.lstsq(W_in.T, A.T).solution.T.float())


# --- What a trained MLP does ------------------------------------------------------------------------------


class Directions(NamedTuple):
    """What a matrix does along M's directions, strongest first."""

    strength: Float[Tensor, " n"]
    """M's eigenvalue or singular value."""
    cosine: Float[Tensor, " n"]
    """Of what M makes of the direction, its sign aside, and what the matrix makes of it."""
    gain: Float[Tensor, " n"]
    """How far the matrix carries a direction of length one that way."""


def along_directions(B: Float[Tensor, "n n"], M: Float[Tensor, "n n"]) -> Directions:
    """Feed M's eigenvectors (M symmetric) or right singular vectors to B, and look along M's own, or left, ones.

    Eigenvalues run from the largest to the most negative; for these, directions are those of the eigenvectors.
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
    """‖Q_Aᵀ Q_B‖² over the smaller number of columns, with orthonormal bases Q of both; 1 if one space holds the other.

    It is the mean squared cosine of the principal angles. Random spaces of n_a and n_b dimensions in d have
    max(n_a, n_b) / d on average.
    """
    Q_A, Q_B = (torch.linalg.qr(X).Q for X in (A, B))
    return (Q_A.T @ Q_B).square().sum().item() / min(Q_A.shape[1], Q_B.shape[1])


def project(M: Float[Tensor, "n n"], k: int) -> Float[Tensor, "n n"]:
    """The projection on the eigenvectors of the k largest eigenvalues of M, symmetric."""
    _, vectors = torch.linalg.eigh(M)
    return vectors[:, -k:] @ vectors[:, -k:].T


def line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Slope and intercept of the least-squares line."""
    slope = ((x - x.mean()) * (y - y.mean())).mean() / (x - x.mean()).square().mean()
    return slope.item(), (y.mean() - slope * x.mean()).item()


def crossing(x: Sequence[float], y: Sequence[float], level: float) -> float:
    """Where a curve last rises through a level, on the straight line between its points."""
    i = max(i for i in range(1, len(y)) if y[i - 1] < level <= y[i])
    return x[i - 1] + (level - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1])
