"""Toy models of superposition and their components: columns, networks, lengths."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from pd_helpers import metrics
from pd_helpers.plots.page import COLORS, GREY, NEGATIVE, POSITIVE, color, figure

if TYPE_CHECKING:
    import pandas

    from pd_helpers.runs import Run


def columns(
    ax: Axes,
    W: Tensor,
    *,
    limit: float = 1.45,
    labels: bool = True,
    colors: Sequence | None = None,
    style: str = "-",
    width: float = 2.0,
    threshold: float = 0.02,
    reach: float = 0.2,
) -> Axes:
    """The columns of W (2, n_features) as arrows from the origin, numbered by feature.

    Columns shorter than `threshold` are not drawn; numbers stand `reach` beyond the arrows' tips.
    """
    W = np.asarray(W.detach().cpu())
    for j, (x, y) in enumerate(W.T):
        if (length := float(np.hypot(x, y))) < threshold:
            continue
        shade = color(j) if colors is None else colors[j]
        ax.plot([0, x], [0, y], style, color=shade, lw=width, solid_capstyle="round")
        ax.plot([x], [y], "o", color=shade, ms=2.2 * width)
        if labels and length > 0.12:
            out = 1 + reach / length
            ax.text(x * out, y * out, str(j), color=shade, ha="center", va="center", fontsize=9)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    ax.tick_params(labelsize=8, length=2)
    ax.axhline(0, color="0.9", lw=0.8, zorder=0)
    ax.axvline(0, color="0.9", lw=0.8, zorder=0)
    sns.despine(ax=ax)
    return ax


def network(ax: Axes, W: Tensor, *, scale: float = 1.0) -> Axes:
    """A toy model of superposition as a drawing: W (n_hidden, n_features) from inputs to hidden, Wᵀ from there on.

    A line's width is the weight's size; solid blue lines are positive, dashed red ones negative.
    """
    W = np.asarray(W.detach().cpu())
    n_hidden, n_features = W.shape
    x_features = np.arange(n_features) - (n_features - 1) / 2
    x_hidden = (np.arange(n_hidden) - (n_hidden - 1) / 2) * 2
    for j in range(n_features):
        for i in range(n_hidden):
            w = W[i, j] / scale
            if abs(w) < 0.02:
                continue
            look = {
                "color": POSITIVE if w > 0 else NEGATIVE,
                "ls": "-" if w > 0 else (0, (3, 1.2)),
                "lw": 2.6 * abs(w),
            }
            ax.plot([x_features[j], x_hidden[i]], [0, 1], zorder=1, **look)
            ax.plot([x_hidden[i], x_features[j]], [1, 2], zorder=1, **look)
    nodes = {"s": 42, "color": "white", "edgecolor": "0.2", "zorder": 2}
    ax.scatter(x_features, np.zeros(n_features), **nodes)
    ax.scatter(x_hidden, np.ones(n_hidden), **nodes)
    ax.scatter(x_features, 2 * np.ones(n_features), **nodes)
    for j, x in enumerate(x_features):
        ax.text(x, -0.24, str(j), ha="center", va="center", fontsize=8, color=color(j))
    ax.set(xlim=(x_features[0] - 0.6, x_features[-1] + 0.6), ylim=(-0.45, 2.25))
    ax.set_axis_off()
    return ax


def phases(ax: Axes, table: "pandas.DataFrame") -> Axes:
    """Columns of W at every number of features and feature probability, with how many are kept; see `superposition`."""
    sizes, chances = (sorted(table[key].unique()) for key in ("n_features", "feature_probability"))
    for row in table.itertuples():
        x, y = chances.index(row.feature_probability), sizes.index(row.n_features)
        W = 0.3 * np.asarray(row.kept["W"]) + np.array([[x], [y]])
        lost = row.n_features - row.represented
        ax.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color="0.93" if lost else "white", zorder=0))
        for j, end in enumerate(W.T[: row.n_features]):
            ax.plot([x, end[0]], [y, end[1]], color=color(j), lw=1.4, solid_capstyle="round")
        ax.text(x + 0.45, y - 0.4, row.represented, ha="right", fontsize=7, color="0.2")
    ax.set(xlim=(-0.5, len(chances) - 0.5), ylim=(-0.5, len(sizes) - 0.5), aspect="equal")
    ax.set(xlabel="feature probability p", ylabel="features m₂", yticks=range(len(sizes)), yticklabels=sizes)
    ax.set_xticks(range(len(chances)), [f"{p:g}" for p in chances])
    ax.tick_params(length=0, labelsize=8)
    sns.despine(ax=ax, left=True, bottom=True)
    return ax


def matrix(ax: Axes, W: Tensor, *, limit: float | None = None, numbers: bool = True) -> Axes:
    """A small matrix as a heat map with its entries written in: two digits, or none if they are whole numbers."""
    W = np.asarray(W.detach().cpu())
    limit = limit or float(np.abs(W).max())
    ax.imshow(W, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    if numbers:
        for (i, j), w in np.ndenumerate(W):
            ax.text(
                j,
                i,
                f"{w:.2f}" if W.dtype.kind == "f" else str(w),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if abs(w) > 0.6 * limit else "black",
            )
    ax.set(xticks=range(W.shape[1]), yticks=range(W.shape[0]))
    ax.tick_params(labelsize=8, length=0)
    return ax


def outputs(ax: Axes, output: Tensor, target: Tensor) -> Axes:
    """Outputs of a network as bars, over the target's as outlines."""
    output, target = (np.asarray(v.detach().cpu()) for v in (output, target))
    places = range(len(output))
    ax.bar(places, output, color=[color(j) for j in places], label="masked network")
    ax.bar(places, target, fill=False, edgecolor="0.2", lw=1.4, label="target")
    ax.set(xlabel="output", ylabel="value", xticks=places, ylim=(0, max(1.1, 1.1 * float(target.max()))))
    ax.legend(fontsize=8, frameon=False)
    sns.despine(ax=ax)
    return ax


def by_feature(P: Tensor, W: Tensor, threshold: float = 0.5) -> list[int]:
    """Components in the order of the target column each serves best, the rest by size; only those of some size.

    A component is kept if its largest column is at least `threshold` of the target's longest.
    """
    lengths = P.detach().norm(dim=1)  # (C, n_features)
    largest = lengths.max(dim=1)
    kept = [c for c in range(len(P)) if largest.values[c] >= threshold * W.norm(dim=0).max()]
    return sorted(kept, key=lambda c: (int(largest.indices[c]), -float(largest.values[c])))


def decomposition(run: "Run", n_shown: int = 5) -> tuple[Figure, str]:
    """A decomposed toy model with two hidden dimensions (APD figure 3, SPD figure 1).

    Top row: columns of the target's W, of the sum of components, and of the largest components. Bottom row: the
    networks with these weights. Components are ordered by the feature they serve. Returns figure and alt text.
    """
    P, W = run.first_layer
    P = P.cpu()
    order = P.norm(dim=(1, 2)).argsort(descending=True)[:n_shown].tolist()
    order.sort(key=lambda c: int(P[c].norm(dim=0).argmax()))
    panels = [("target W", W), (f"sum of {len(P)}", P.sum(dim=0)), *((f"component {c}", P[c]) for c in order)]
    fig, axes = figure(9.2, 3.6, 2, len(panels), height_ratios=[1.2, 1])
    for (title, M), top, bottom in zip(panels, axes[0], axes[1], strict=True):
        columns(top, M, limit=1.7, reach=0.38).set_title(title, fontsize=9)
        network(bottom, M)
        top.set(xticklabels=[], yticklabels=[])
    axes[0, 0].set_ylabel("columns", fontsize=9)
    scores = f"MMCS {metrics.mmcs(P, W.cpu()):.3f}, ML2R {metrics.ml2r(P, W.cpu()):.3f}"
    shapes = "; ".join(
        f"component {c} is longest in column {int(P[c].norm(dim=0).argmax())} ({float(P[c].norm(dim=0).max()):.2f})"
        for c in order
    )
    alt = (
        f"Columns in the hidden plane, and drawn as networks below: target, sum of all components, and the "
        f"{len(order)} largest components. {shapes}. {scores}."
    )
    return fig, alt


def column_sums(ax: Axes, P: Tensor, W: Tensor) -> Axes:
    """Where each target column's length went: for column j, the length of P_c[:, j] along W[:, j], stacked over c.

    Bars reach 1 where the sum is faithful; the largest part of each is the matching component.
    """
    P, W = P.detach().cpu(), W.detach().cpu()
    parts = ((P * W).sum(dim=1) / W.square().sum(dim=0)).numpy()  # (C, n_features), sums to 1 over C
    n_features = parts.shape[1]
    for j in range(n_features):
        up, down = 0.0, 0.0
        for c in np.argsort(-np.abs(parts[:, j])).tolist():
            part = parts[c, j]
            ax.bar(j, part, bottom=up if part > 0 else down, color=color(c), edgecolor="white", lw=0.6)
            if abs(part) > 0.06:
                ax.text(
                    j,
                    (up if part > 0 else down) + part / 2,
                    str(c),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white",
                )
            up, down = up + max(part, 0), down + min(part, 0)
    ax.axhline(1, color="0.2", lw=1, ls=":")
    ax.axhline(0, color="0.2", lw=0.8)
    ax.set(xlabel="column of W (feature)", ylabel="share of the column", xticks=range(n_features))
    sns.despine(ax=ax)
    return ax


def lengths(ax: Axes, P: Tensor, n_marked: int = 5) -> Axes:
    """The length ‖P_c‖ of every component (C, d_out, d_in), sorted; the first few with their values."""
    values, order = (np.asarray(v.cpu()) for v in P.detach().norm(dim=(1, 2)).sort(descending=True))
    places = np.arange(len(values))
    bars = ax.bar(places[:n_marked], values[:n_marked], color=COLORS[0])
    ax.bar(places[n_marked:], values[n_marked:], color=GREY)
    ax.bar_label(bars, fmt="%.2f", fontsize=9, padding=2)
    if len(values) > n_marked:
        middle = (n_marked + len(values) - 1) / 2
        note = f"the other {len(values) - n_marked}: at most {values[n_marked]:.3f}"
        ax.text(middle, values[n_marked] + 0.06 * values[0], note, ha="center", fontsize=10)
    ax.set(xlabel="component, by number", ylabel="length ‖P‖", ylim=(0, 1.25 * values[0]), xticks=places)
    ax.set_xticklabels(order.tolist(), fontsize=8)
    sns.despine(ax=ax)
    return ax


class Arrows:
    """Columns of a (2, n) matrix as arrows in one colour that can be moved, without drawing their axes anew."""

    def __init__(self, ax: Axes, color: object, *, width: float = 2.0, threshold: float = 0.02):
        self.threshold = threshold
        [self.shafts] = ax.plot([], [], "-", color=color, lw=width, solid_capstyle="round")
        [self.tips] = ax.plot([], [], "o", color=color, ms=2.2 * width)

    def move(self, W: Tensor) -> None:
        """Show these columns; those shorter than `threshold` are left out."""
        tips = W.detach().cpu().numpy()
        tips = tips[:, np.hypot(*tips) >= self.threshold]  # (2, n)
        origin, gap = np.zeros_like(tips), np.full_like(tips, np.nan)
        self.shafts.set_data(*np.stack([origin, tips, gap], axis=2).reshape(2, -1))
        self.tips.set_data(*tips)


def deep_network(
    ax: Axes, matrices: Sequence[Tensor], *, names: Sequence[str] = (), behind: Sequence[Tensor] = ()
) -> Axes:
    """Matrices (d_out, d_in) applied one after the other, as a drawing from the bottom up (SPD figure 4).

    A line's width is the weight's size; solid blue lines are positive, dashed red ones negative. `behind` are other
    matrices of the same shapes, drawn in pale grey; `names` are written at the left of each matrix.
    """

    def places(n: int) -> np.ndarray:
        return (np.arange(n) - (n - 1) / 2) * (1 if n == widest else (widest - 1) / max(2, n))

    sizes = [matrices[0].shape[1], *(len(W) for W in matrices)]
    widest = max(sizes)
    nodes = [places(n) for n in sizes]
    for weights, pale in ((behind, True), (matrices, False)):
        for level, W in enumerate(weights):
            for (i, j), w in np.ndenumerate(np.asarray(W.detach().cpu())):
                if abs(w) < 0.02:
                    continue
                look = {"color": POSITIVE if w > 0 else NEGATIVE, "ls": "-" if w > 0 else (0, (3, 1.2)), "zorder": 1}
                if pale:
                    look = {"color": "0.88", "zorder": 0}
                ax.plot([nodes[level][j], nodes[level + 1][i]], [level, level + 1], lw=2.6 * abs(w), **look)
    for level, x in enumerate(nodes):
        ax.scatter(x, np.full(len(x), level), s=42, color="white", edgecolor="0.2", zorder=2)
    for level, offset in ((0, -0.32), (len(matrices), 0.32)):
        for j, x in enumerate(nodes[level]):
            ax.text(x, level + offset, str(j), ha="center", va="center", fontsize=8, color=color(j))
    for level, name in enumerate(names):
        ax.text(nodes[0][0] - 0.7, level + 0.5, name, ha="center", va="center", fontsize=9)
    margin = 1.1 if names else 0.6
    ax.set(xlim=(-widest / 2 + 0.5 - margin, widest / 2 - 0.5 + 0.6), ylim=(-0.55, len(matrices) + 0.55))
    ax.set_axis_off()
    return ax


def sorted_lengths(ax: Axes, P: Tensor, n_alive: int) -> Axes:
    """The length ‖P_c‖ of every component (C, d_out, d_in) as a dot, sorted: for more components than bars can show.

    The `n_alive` longest are dots, the others crosses.
    """
    values = np.asarray(P.detach().norm(dim=(1, 2)).sort(descending=True).values.cpu())
    places = np.arange(1, len(values) + 1)
    ax.plot(places[:n_alive], values[:n_alive], "o", color=COLORS[0], ms=3.5)
    ax.plot(places[n_alive:], values[n_alive:], "x", color=GREY, ms=3)
    ax.axvline(n_alive + 0.5, color="0.6", ls=":", lw=1)
    ax.text(n_alive + 0.04 * len(values), 0.75 * values[0], f"{n_alive} alive", fontsize=10)
    if len(values) > n_alive:
        middle = n_alive + 0.04 * len(values)
        note = f"the other {len(values) - n_alive}: at most {values[n_alive]:.3f}"
        ax.text(middle, values[n_alive] + 0.06 * values[0], note, fontsize=10)
    ax.set(xlabel="subcomponents, longest first", ylabel="length ‖P‖", ylim=(-0.04 * values[0], 1.12 * values[0]))
    sns.despine(ax=ax)
    return ax
