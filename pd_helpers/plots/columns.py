"""Small matrices as pictures: their columns as arrows, their entries as heat maps, and a whole decomposed toy model."""

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pd_helpers.analysis import metrics
from pd_helpers.plots.networks import network
from pd_helpers.plots.page import color, figure
from pd_helpers.runs.calls import checked
from pd_helpers.runs.run import Run


@checked()
def columns(
    ax: Axes,
    W: Shaped[Tensor, "2 n_features"],
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

    Columns shorter than `threshold` are not drawn. The numbers are placed at the distance `reach` beyond the tips.
    """
    W = np.asarray(W.detach().cpu())
    for j, (x, y) in enumerate(W.T):
        if (length := float(np.hypot(x, y))) < threshold:
            continue
        shade = color(j) if colors is None else colors[j]
        ax.plot([0, x], [0, y], style, color=shade, lw=width, solid_capstyle="round")
        ax.plot([x], [y], "o", color=shade, ms=2.2 * width)
        if labels and length > 0.12:
            factor = 1 + reach / length
            ax.text(x * factor, y * factor, str(j), color=shade, ha="center", va="center", fontsize=9)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    ax.tick_params(labelsize=8, length=2)
    ax.axhline(0, color="0.9", lw=0.8, zorder=0)
    ax.axvline(0, color="0.9", lw=0.8, zorder=0)
    sns.despine(ax=ax)
    return ax


@checked()
def matrix(ax: Axes, W: Shaped[Tensor, "rows columns"], *, limit: float | None = None, numbers: bool = True) -> Axes:
    """A small matrix as a heat map with its entries written in, with two decimals unless they are integers."""
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


@checked()
def outputs(ax: Axes, output: Shaped[Tensor, " n"], target: Shaped[Tensor, " n"]) -> Axes:
    """Outputs of a masked network as bars, and those of the target as outlines."""
    output, target = (np.asarray(v.detach().cpu()) for v in (output, target))
    places = range(len(output))
    ax.bar(places, output, color=[color(j) for j in places], label="masked network")
    ax.bar(places, target, fill=False, edgecolor="0.2", lw=1.4, label="target")
    ax.set(xlabel="output", ylabel="value", xticks=places, ylim=(0, max(1.1, 1.1 * float(target.max()))))
    ax.legend(fontsize=8, frameon=False)
    sns.despine(ax=ax)
    return ax


@checked()
def decomposition(run: Run, n_shown: int = 5) -> tuple[Figure, str]:
    """A decomposed toy model with two hidden dimensions (APD figure 3, SPD figure 1).

    The top row has the columns of the target's W, of the sum of components, and of the `n_shown` largest components,
    which are sorted by the feature that they serve. The bottom row has the networks with these weights.

    Returns the figure and its alt text.
    """
    P, W = run.first_layer
    if len(W) != 2 or n_shown < 1:
        raise ValueError(
            f"run must have two outputs in its first layer and n_shown must be at least 1, but they are {len(W)} and "
            f"{n_shown}; plots.decomposition(pdh.shipped('apd/tms_5-2')) works"
        )
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


class Arrows:
    """The columns of a (2, n) matrix as arrows in one colour, which can be moved without drawing the axes again."""

    @checked()
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
