"""APD as pictures: a network as a sum of components, and the three losses (our drawings of APD figures 1 and 2)."""

import numpy as np
import seaborn as sns
import torch
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pd_helpers.plots.networks import network
from pd_helpers.plots.page import color, figure
from pd_helpers.runs.calls import checked


@checked()
def column_sums(ax: Axes, P: Shaped[Tensor, "C d_out d_in"], W: Shaped[Tensor, "d_out d_in"]) -> Axes:
    """How components share the length of each target column: the length of P_c[:, j] along W[:, j], stacked over c.

    The bar of a column reaches 1 if the sum of components is faithful; its largest part is the matching component.
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


ROUND = {"boxstyle": "round,pad=0.45"}
"""The box around a piece of text."""


@checked()
def sum_of_components(
    W: Shaped[Tensor, "d_out d_in"],
    P: Shaped[Tensor, "C d_out d_in"],
    x: Shaped[Tensor, "rows d_in"],
    active: Shaped[Tensor, "rows C"],
    scale: float = 1.0,
) -> tuple[Figure, str]:
    """A network as a sum of components, and which of these each of a few inputs uses (after APD figure 1).

    Args: W (d_out, d_in), P (C, d_out, d_in), x (rows, d_in), active (rows, C), and scale, the weight that is drawn as
    one full line width. Returns the figure and its alt text.
    """
    C, rows = len(P), len(x)
    fig, axes = figure(9.2, 1.5 + 0.62 * rows, 1 + rows, 1 + C, height_ratios=[2.2] + [1.0] * rows)
    for c, ax in enumerate(axes[0]):
        network(ax, W if c == 0 else P[c - 1], scale=scale)
        ax.set_title("network" if c == 0 else f"component {c - 1}", fontsize=10)
        sign = "=" if c == 0 else "+" if c < C else ""
        ax.annotate(sign, (1.06, 0.5), xycoords="axes fraction", fontsize=16, va="center", annotation_clip=False)
    for i, row in enumerate(axes[1:]):
        row[0].bar(range(x.shape[1]), x[i], color=[color(j) for j in range(x.shape[1])])
        row[0].set(xticks=[], yticks=[], ylim=(0, 1), ylabel=f"input {i}")
        row[0].spines[["top", "right", "left"]].set_visible(False)
        for c, ax in enumerate(row[1:]):
            ax.set_axis_off()
            on = bool(active[i, c])
            box = {"facecolor": color(c) if on else "none", "edgecolor": color(c) if on else "0.8", **ROUND}
            middle = {"ha": "center", "va": "center", "fontsize": 10}
            ax.text(0.5, 0.5, "on" if on else "off", color="white" if on else "0.6", bbox=box, **middle)
    numbers = [", ".join(map(str, row.nonzero().flatten().tolist())) for row in active]
    clauses = "; ".join(f"input {i} uses {components}" for i, components in enumerate(numbers))
    return fig, f"The network as the sum of {C} components, each a network of the same shape. Below, inputs: {clauses}."


@checked()
def losses_diagram(ax: Axes) -> Axes:
    """The computation of APD: attributions choose components, and three losses train these (after APD figure 2)."""
    boxes = {
        "x": (0.0, 1.0, "input\n$x$"),
        "target": (2.0, 1.7, "network\n$\\theta^*$"),
        "parts": (2.0, 0.3, "components\n$P_1, \\dots, P_C$"),
        "A": (4.3, 1.0, "attributions\n$A_c(x)$"),
        "s": (6.3, 1.0, "batch top-k\n$s_c(x)$"),
        "sparse": (8.4, 0.3, "$\\sum_c s_c P_c$"),
        "f": (10.4, 1.7, "output\n$f(x\\,|\\,\\theta^*)$"),
        "g": (10.4, 0.3, "output with\nactive ones"),
    }
    middle = {"ha": "center", "va": "center", "fontsize": 10}
    for name, (x, y, text) in boxes.items():
        edge = color(0) if name in ("parts", "sparse", "g") else "0.3"
        ax.text(x, y, text, zorder=3, bbox={"facecolor": "white", "edgecolor": edge, "lw": 1.5, **ROUND}, **middle)
    gaps = {"A": 46, "s": 42, "g": 44}  # points between an arrow's head and the middle of a wide box
    arrows = [("x", "target"), ("target", "A"), ("parts", "A"), ("A", "s"), ("s", "sparse"), ("parts", "sparse")]
    for start, end in [*arrows, ("sparse", "g"), ("target", "f")]:
        look = {"arrowstyle": "-|>", "color": "0.55", "shrinkA": 26, "shrinkB": gaps.get(end, 32)}
        ax.annotate("", boxes[end][:2], boxes[start][:2], zorder=1, arrowprops=look)
    for first, second, name in (("target", "parts", "faithfulness"), ("f", "g", "minimality")):
        look = {"arrowstyle": "<->", "color": color(1), "lw": 2, "ls": "--", "shrinkA": 18, "shrinkB": 18}
        ax.annotate("", boxes[second][:2], boxes[first][:2], zorder=1, arrowprops=look)
        blank = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        ax.text(boxes[first][0], 1.0, name, color=color(1), weight="bold", zorder=4, bbox=blank, **middle)
    ax.text(8.4, -0.22, "simplicity: the shorter, the better", color=color(1), ha="center", fontsize=10, weight="bold")
    ax.set(xlim=(-0.7, 11.4), ylim=(-0.45, 2.2))
    ax.set_axis_off()
    return ax


@checked()
def telling_inputs(x: Shaped[Tensor, "rows d_in"], active: Shaped[Tensor, "rows C"], n: int = 3) -> Tensor:
    """Numbers of `n` rows to show: n − 1 with one feature and one active component, then one with two of each."""
    n_features, n_active = (x > 0.3).sum(dim=1), active.sum(dim=1)
    single = ((n_features == 1) & (n_active == 1)).nonzero().flatten()[: n - 1]
    double = ((n_features == 2) & (n_active == 2)).nonzero().flatten()[:1]
    return torch.cat([single, double])
