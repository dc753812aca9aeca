"""Pictures of SPD on toy models: lengths of subcomponents, networks, leaky sigmoids, and feature splitting."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
import torch
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

from pd_helpers.core.causal_importance import hard_sigmoid, lower_leaky, upper_leaky
from pd_helpers.core.config import shown
from pd_helpers.plots.page import COLORS, GREY, NEGATIVE, POSITIVE, color, figure
from pd_helpers.runs.calls import check_columns, checked

if TYPE_CHECKING:
    import pandas


@checked()
def by_feature(P: Shaped[Tensor, "C d_out d_in"], W: Shaped[Tensor, "d_out d_in"], threshold: float = 0.5) -> list[int]:
    """The large components, sorted by their longest column; of components with the same longest column, longest first.

    A component is large if its longest column has at least `threshold` times the length of the target's longest column.
    """
    longest = P.detach().norm(dim=1).max(dim=1)  # over (C, n_features)
    large = [c for c in range(len(P)) if longest.values[c] >= threshold * W.norm(dim=0).max()]
    return sorted(large, key=lambda c: (int(longest.indices[c]), -float(longest.values[c])))


@checked()
def lengths(ax: Axes, P: Shaped[Tensor, "C d_out d_in"], n_marked: int = 5) -> Axes:
    """The length ‖P_c‖ of every component (C, d_out, d_in), sorted; the first `n_marked` are labelled with values."""
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


@checked()
def deep_network(
    ax: Axes, matrices: Sequence[Tensor], *, names: Sequence[str] = (), behind: Sequence[Tensor] = ()
) -> Axes:
    """Matrices (d_out, d_in) that are applied one after the other, as a drawing from bottom to top (SPD figure 4).

    The width of a line shows the size of the weight. Positive weights are solid blue lines, and negative ones dashed
    red lines. `behind` holds other matrices of the same shapes, which are drawn in pale grey; `names` are written to
    the left of the matrices.
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


@checked()
def sorted_lengths(ax: Axes, P: Shaped[Tensor, "C d_out d_in"], n_alive: int) -> Axes:
    """The length ‖P_c‖ of every component (C, d_out, d_in), sorted, if there are too many components for bars.

    The `n_alive` longest are dots, and the others are crosses.
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


@checked()
def scores(ax: Axes, history: "pandas.DataFrame") -> Axes:
    """MMCS and ML2R over the training step."""
    check_columns("history", history, ["step", "mmcs", "ml2r"], "run.history")
    ax.plot(history["step"], history["mmcs"], color=color(2), label="MMCS (direction)")
    ax.plot(history["step"], history["ml2r"], color=color(1), ls="--", label="ML2R (length)")
    ax.axhline(1, color="0.8", lw=0.8, zorder=0)
    ax.set(xlabel="training step", ylabel="score", ylim=(0, 1.1))
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    sns.despine(ax=ax)
    return ax


@checked()
def curves(ax: Axes, x: Shaped[Tensor, " points"], Y: Shaped[Tensor, "points n"]) -> Axes:
    """One line for each column of Y (points, n_features) over x; lines differ in colour and style."""
    x, Y = (np.asarray(v.detach().cpu()) for v in (x, Y))
    styles = ["-", "--", "-.", ":", (0, (5, 1))]
    for j in range(Y.shape[1]):
        ax.plot(x, Y[:, j], color=color(j), ls=styles[j % len(styles)], lw=2, label=str(j))
    sns.despine(ax=ax)
    return ax


@checked()
def leaky_sigmoids() -> tuple[Figure, str]:
    """SPD's two leaky hard sigmoids, and the regions where their gradients are zero.

    Returns the figure and its alt text.
    """
    low, high = -1.2, 2.2
    gate = torch.linspace(low, high, 500)
    panels = [
        ("lower-leaky: for masks", lower_leaky, (1, high), ("slope 0.01:\nstill learns", "slope 0:\ngradient dies")),
        (
            "upper-leaky: for the importance loss",
            upper_leaky,
            (low, 0),
            ("slope 0:\ngradient dies", "slope 0.01:\nstill learns"),
        ),
    ]
    fig, axes = figure(9, 3.4, 1, 2, sharey=True)
    for ax, (title, leaky, flat, (below, above)) in zip(axes[0], panels, strict=True):
        ax.axvspan(*flat, facecolor="0.93", edgecolor="0.75", hatch="//", lw=0)
        ax.plot(gate, hard_sigmoid(gate), color=GREY, ls=":", lw=3, label="hard sigmoid")
        ax.plot(gate, leaky(gate), color=COLORS[0], lw=2, label="with a leak")
        for x, y, text in ((-0.62, 0.3, below), (0.52, 0.1, "slope 1"), (1.62, 0.62, above)):
            ax.text(x, y, text, ha="center", fontsize=10)
        ax.set(xlabel="Γ, the tiny network's output", xlim=(low, high), ylim=(-0.12, 1.2))
        ax.set_title(title, fontsize=11)
    axes[0, 0].set_ylabel("importance g")
    axes[0, 0].legend(frameon=False, fontsize=9, loc="upper left")
    alt = (
        "Two sigmoids that rise from 0 at 0 to 1 at 1. The lower-leaky one keeps a slope of 0.01 below 0 and is flat "
        "above 1; the upper-leaky one is flat below 0 and keeps a slope of 0.01 above 1. Flat parts are hatched: the "
        "gradient dies there."
    )
    return fig, alt


@checked()
def against_room(ax: Axes, lines: Mapping[str, Mapping[int, float]], ylabel: str, everything: bool = False) -> Axes:
    """How many components are used, over how many are on offer, with both axes logarithmic.

    `lines` maps a label to {number on offer: number in use}. `everything` adds the diagonal, on which all components on
    offer are used.
    """
    if not lines or not all(lines.values()):
        raise ValueError(
            f"lines must hold numbers for every label, but is {shown(dict(lines))}; {{'SPD': {{5: 5}}}} works"
        )
    for k, (label, counts) in enumerate(lines.items()):
        look = {"marker": "os^Dv"[k % 5], "ls": ["-", "--", "-.", ":"][k % 4], "color": color(k)}
        ax.plot(list(counts), list(counts.values()), label=label, lw=1.8, **look)
    if everything:
        sizes = [n for counts in lines.values() for n in counts]
        ax.plot([min(sizes), max(sizes)], [min(sizes), max(sizes)], color="0.6", lw=1, label="all that is offered")
    ax.set(xscale="log", yscale="log", xlabel="subcomponents or latents on offer", ylabel=ylabel)
    if everything:
        ax.set_ylim(top=4 * max(sizes))  # space for the legend
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    sns.despine(ax=ax)
    return ax
