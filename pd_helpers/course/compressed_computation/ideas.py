"""Compressed computation revisited (Bhagat et al. 2026): a small MLP whose labels contain a mixing matrix M.

    y(x) = ReLU(x) + M x        what an MLP beside a noisy skip connection must compute, with M = I − W_Eᵀ W_E
    ŷ(x) = W_out ReLU(W_in x)   the MLP, which has no biases and fewer neurons than features
    L / p                       loss per feature: mean squared error over outputs, divided by the feature probability

Functions here take many MLPs at once, with a leading dimension of `M`, `W_in` and `W_out`, so that a whole sweep is one
training run.

A feature is on with probability p, and then uniform on [-1, 1]. Inputs with no feature on have no error for any
weights, so they are never drawn; means account for them exactly, through the share of inputs that are not all zero.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from pd_helpers.analysis.subspaces import mixing_matrix
from pd_helpers.core.training import adamw, generator, learning_rate, progress
from pd_helpers.runs.sweeps import points_of

if TYPE_CHECKING:
    import pandas


N_FEATURES, N_NEURONS, D_RESID = 100, 50, 1000
SIGMAS = {"none": 0.0, "embedding": D_RESID**-0.5, "flipped": D_RESID**-0.5, "symmetric": 0.033, "asymmetric": 0.025}
"""Kind of mixing → standard deviation of M's entries: the natural one of an embedding, or the published one."""
SPARSE = 0.2
"""Below this feature probability sparse matrix products are faster."""


class MLP(NamedTuple):
    """W_out ReLU(W_in x) without biases; one MLP, or many with a leading dimension."""

    W_in: Float[Tensor, "*models d n"]
    W_out: Float[Tensor, "*models n d"]

    def __call__(self, x: Float[Tensor, "rows n"]) -> Float[Tensor, "*models rows n"]:
        return torch.relu(x @ self.W_in.mT) @ self.W_out.mT

    def model(self, i: int) -> "MLP":
        """The MLP with index i of many."""
        return MLP(self.W_in[i], self.W_out[i])

    @property
    def product(self) -> Float[Tensor, "*models n n"]:
        """W_out W_in: what the MLP would do to the features without its ReLU."""
        return self.W_out @ self.W_in


def mixing(kind: str, sigma: float, *, n: int = N_FEATURES, seed: int = 0) -> Float[Tensor, "n n"]:
    """A random mixing matrix whose entries have the standard deviation `sigma`.

    Matrices of one kind and seed are multiples of each other. The kinds are "none"; "embedding", I − W_Eᵀ W_E of a
    random W_E of width 1,000, whose natural sigma is 1/√1000; "flipped", the same with the other sign; "symmetric" and
    "asymmetric", with normal random entries, including the diagonal. Raises ValueError for any other kind.
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
    """Inputs with at least one feature on, drawn from the exact distribution of such inputs."""
    # The first feature that is on follows a geometric distribution, cut at n; those after it are independent.
    u = torch.rand(rows, 1, generator=draw, dtype=torch.float64)
    first = torch.floor(torch.log1p(-u * share_on(p, n)) / torch.log1p(torch.tensor(-p, dtype=torch.float64)))
    place = torch.arange(n)
    on = (place == first) | ((place > first) & (torch.rand(rows, n, generator=draw) < p))
    return torch.where(on, 2 * torch.rand(rows, n, generator=draw) - 1, 0.0)


def share_on(p: float, n: int = N_FEATURES) -> float:
    """The share of inputs with at least one feature on."""
    return 1 - (1 - p) ** n


def labels(x: Float[Tensor, "rows n"], M: Float[Tensor, "*models n n"]) -> Float[Tensor, "*models rows n"]:
    """ReLU(x) + M x."""
    return torch.relu(x) + x @ M.mT


@torch.no_grad()
def loss_per_feature(
    mlp: MLP, M: Float[Tensor, "*models n n"], p: float, *, rows: int = 100_000, seed: int = 0
) -> Float[Tensor, "*models"]:
    """L / p against the labels of M, measured on `rows` inputs with at least one feature on."""
    draw, total = generator(seed, "evaluation"), 0.0
    for n_rows in [10_000] * (rows // 10_000) + [rows % 10_000] * (rows % 10_000 > 0):
        x = inputs(p, n_rows, draw, M.shape[-1])
        total = total + (mlp(x) - labels(x, M)).square().sum(dim=(-2, -1))
    return total / rows / M.shape[-1] * share_on(p, M.shape[-1]) / p


def linear_loss(mlp: MLP, M: Float[Tensor, "*models n n"]) -> Float[Tensor, "*models"]:
    """The linear part of L / p, which is the same at every p: |I + 2M − W_out W_in|² / (12 n).

    Every function of x is the sum of an odd and an even function. With ReLU(z) = z/2 + |z|/2, these are (I/2 + M) x and
    |x|/2 for the labels, and W_out W_in x / 2 and W_out |W_in x| / 2 for the MLP. Since x and −x are equally likely,
    the odd and the even error add up. The rest of L / p is the nonlinear part, which does not depend on M.
    """
    return (torch.eye(M.shape[-1]) + 2 * M - mlp.product).square().sum(dim=(-2, -1)) / (12 * M.shape[-1])


def linear_bound(M: Float[Tensor, "*models n n"], d: int = N_NEURONS) -> Float[Tensor, "*models"]:
    """The lower bound of `linear_loss` for d neurons, since W_out W_in has rank d at most (Eckart and Young)."""
    remainder = torch.linalg.svdvals(torch.eye(M.shape[-1]) + 2 * M)[..., d:]
    return remainder.square().sum(dim=-1) / (12 * M.shape[-1])


# --- Training ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """How the MLPs are trained; defaults are those of the paper, except for `rows`."""

    steps: int = 10_000
    """Number of training steps."""
    rows: int = 512
    """Number of inputs per training step, each with at least one feature on. The paper has batches of 2048 inputs, of
    which 1298 are not all zero at p = 0.01."""
    lr: float = 3e-3
    """AdamW's learning rate at its highest."""
    schedule: str = "cosine"
    """Course of the learning rate."""
    weight_decay: float = 1e-2
    """AdamW's weight decay."""


def untrained(models: int, seed: int = 0, n: int = N_FEATURES, d: int = N_NEURONS) -> MLP:
    """`models` identical MLPs with normal random weights."""
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
    """Train one MLP for each M, all on the same inputs; yields them after every step, as views of the trained weights.

    Each MLP is trained as it would be alone: the total loss is the sum of their losses, and no weight occurs in two of
    them.

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
    """The sum over models of L / p on `x`, up to a constant that does not depend on the weights.

    With h = ReLU(W_in x) and y the label, |W_out h − y|² = h·(W_outᵀ W_out h − 2 W_outᵀ y) + |y|², and
    W_outᵀ y = W_outᵀ ReLU(x) + (W_outᵀ M) x. All products with x and ReLU(x) are sparse, outputs (rows, n) are never
    computed, and the remaining product is with a matrix W_outᵀ W_out (d, d) for each model.
    """
    (models, d, n), rows = mlp.W_in.shape, len(x)
    x_and_relu = torch.cat([x, x.relu()], dim=1)  # (rows, 2n)
    if p < SPARSE:
        x, x_and_relu = x.to_sparse(), x_and_relu.to_sparse()
    W_in = mlp.W_in.permute(2, 0, 1).reshape(n, models * d)
    W_label = torch.cat([M.mT @ mlp.W_out, mlp.W_out], dim=1).permute(1, 0, 2).reshape(2 * n, models * d)
    h, W_out_y = ((v @ W).view(rows, models, d).transpose(0, 1) for v, W in ((x, W_in), (x_and_relu, W_label)))
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
    """Train an MLP at every point of a grid over `kind` and, optionally, `sigma`, `p` and `seed`.

    Args:
        grid: field → values. Without `sigma` each kind has its own from `SIGMAS`; by default `p` is 0.01 and `seed` 0.
        settings: how the MLPs are trained.
        keep: whether weights are part of the table.
        rows: number of inputs on which losses are measured.
        show_progress: whether to show a progress bar.
        at_once: largest number of MLPs that are trained together.

    Returns one row for each point, with the columns of the grid; `loss`, which is L / p; `linear_loss`, its linear
    part; `clean_loss`, L / p of the same network against labels without M; `seconds`, this MLP's share of the time;
    `error`, always None; and `kept`, a dict with the weights and M, which is empty if `keep` is False.
    """
    import pandas

    points = points_of(grid)
    points = [{"sigma": SIGMAS[point["kind"]], "p": 0.01, "seed": 0} | point for point in points]
    ids_by_data: dict[tuple, list[int]] = {}
    for i, point in enumerate(points):
        ids_by_data.setdefault((point["p"], point["seed"]), []).append(i)
    groups = [(*key, ids[i : i + at_once]) for key, ids in ids_by_data.items() for i in range(0, len(ids), at_once)]
    table = [dict[str, object]() for _ in points]
    for p, seed, ids in progress(groups, total=len(groups), description="mixing", show=show_progress, unit="group"):
        began = time.perf_counter()
        M = torch.stack([mixing(points[i]["kind"], points[i]["sigma"], seed=seed) for i in ids])
        *_, mlp = train(M, p, settings=settings, seed=seed)
        loss, clean_loss = (loss_per_feature(mlp, matrix, p, rows=rows) for matrix in (M, torch.zeros_like(M)))
        for j, i in enumerate(ids):
            table[i] = points[i] | {"loss": loss[j].item(), "clean_loss": clean_loss[j].item()}
            table[i]["linear_loss"] = linear_loss(mlp, M)[j].item()
            table[i] |= {"seconds": (time.perf_counter() - began) / len(ids), "error": None}
            table[i]["kept"] = {"W_in": mlp.W_in[j], "W_out": mlp.W_out[j], "M": M[j]} if keep else {}
    return pandas.DataFrame(table)


# --- Rivals -----------------------------------------------------------------------------------------------


def naive(n: int = N_FEATURES, d: int = N_NEURONS, offset: float = 0.0) -> MLP:
    """A neuron for each of the first d features; the other outputs are `offset` times the sum of all neurons."""
    eye = torch.eye(n)[:d]
    return MLP(eye, torch.cat([eye[:, :d], torch.full((n - d, d), offset)]))


def naive_loss(M: Float[Tensor, "n n"], d: int = N_NEURONS) -> float:
    """L / p of the naive MLP against the labels of M, at any p; 1/12 if M = 0 and there are half as many neurons."""
    diagonal = M.diag()[d:]  # of features without a neuron: E[(ReLU(x) + m x)²] / p = 1/6 + m/3 + m²/3
    return ((len(diagonal) / 6 + diagonal.sum() / 3 + M.square().sum() / 3) / len(M)).item()


def best_offset(p: float, d: int = N_NEURONS) -> float:
    """The best offset of the naive MLP, b* = (p/4) E[s] / E[s²], where s is the sum of d independent ReLU(x_i)."""
    mean, square = _neuron_sum(p, d)
    return p / 4 * mean / square


def offset_loss(p: float, n: int = N_FEATURES, d: int = N_NEURONS) -> float:
    """L / p of the naive MLP with the best offset, against labels without M."""
    mean, square = _neuron_sum(p, d)
    return (n - d) / n * (1 / 6 - p / 16 * mean**2 / square)


def _neuron_sum(p: float, d: int) -> tuple[float, float]:
    """E[s] and E[s²] of a sum s of d independent ReLU(x_i), each with mean p/4 and mean square p/6."""
    mean = d * p / 4
    return mean, d * (p / 6 - (p / 4) ** 2) + mean**2


def half_fit_loss(M: Float[Tensor, "*models n n"], d: int = N_NEURONS) -> Float[Tensor, "*models"]:
    """L / p with one feature on, for the best matrix of rank d on positive inputs and zero on negative ones.

    The label of a positive e_i is column i of I + M, for which the error of the best rank-d matrix is the sum of the
    smaller squared singular values (Eckart and Young). The label of −e_i is column i of −M, and all of it is an error.
    """
    n = M.shape[-1]
    remainder = torch.linalg.svdvals(torch.eye(n) + M)[..., d:].square().sum(dim=-1)
    return (remainder + M.square().sum(dim=(-2, -1))) / (6 * n)


def semi_nmf(A: Float[Tensor, "n n"], d: int = N_NEURONS, steps: int = 500, seed: int = 0) -> MLP:
    """A ≈ W_out W_in with W_in ≥ 0 (Ding, Li and Jordan 2010).

    It starts from scikit-learn's NMF of the positive part of A. Then least squares for W_out and the multiplicative
    update for W_in alternate.
    """
    from sklearn.decomposition import NMF

    start = NMF(d, init="nndsvda", random_state=seed, max_iter=1000, tol=1e-3).fit(A.clamp(min=0).double().numpy())
    A, W_in = A.double(), torch.from_numpy(start.components_).double() + 1e-3
    for _ in range(steps):
        W_out = torch.linalg.lstsq(W_in.T, A.T).solution.T
        projection, gram = W_out.T @ A, W_out.T @ W_out
        numerator = projection.clamp(min=0) + (-gram).clamp(min=0) @ W_in
        denominator = (-projection).clamp(min=0) + gram.clamp(min=0) @ W_in
        W_in = W_in * (numerator / denominator.clamp(min=1e-12)).sqrt()
    return MLP(W_in.float(), torch.linalg.lstsq(W_in.T, A.T).solution.T.float())


def line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Slope and intercept of the least-squares line."""
    slope = ((x - x.mean()) * (y - y.mean())).mean() / (x - x.mean()).square().mean()
    return slope.item(), (y.mean() - slope * x.mean()).item()


def crossing(x: Sequence[float], y: Sequence[float], level: float) -> float:
    """The x at which a curve last rises through a level, by linear interpolation between its points."""
    i = max(i for i in range(1, len(y)) if y[i - 1] < level <= y[i])
    return x[i - 1] + (level - y[i - 1]) / (y[i] - y[i - 1]) * (x[i] - x[i - 1])
