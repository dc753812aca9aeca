"""How a training run went, and the importances it ended with."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pd_helpers import experiments
from pd_helpers.causal_importance import hard_sigmoid, lower_leaky, upper_leaky
from pd_helpers.plots.page import COLORS, GREY, color, figure

if TYPE_CHECKING:
    import pandas


def losses(ax: Axes, history: "pandas.DataFrame", names: Sequence[str] | None = None) -> Axes:
    """Unweighted losses against training step, on logarithmic axes; by default those that are not always zero."""
    skipped = {"step", "mmcs", "ml2r"}
    for k, name in enumerate(names or [n for n in history if n not in skipped and history[n].any()]):
        ax.plot(history["step"], history[name], color=color(k), ls=["-", "--", "-.", ":"][k % 4], label=name)
    ax.set(xlabel="training step", ylabel="loss (unweighted)", yscale="log")
    ax.legend(fontsize=8, frameon=False)
    sns.despine(ax=ax)
    return ax


def scores(ax: Axes, history: "pandas.DataFrame") -> Axes:
    """MMCS and ML2R against training step."""
    ax.plot(history["step"], history["mmcs"], color=color(2), label="MMCS (direction)")
    ax.plot(history["step"], history["ml2r"], color=color(1), ls="--", label="ML2R (length)")
    ax.axhline(1, color="0.8", lw=0.8, zorder=0)
    ax.set(xlabel="training step", ylabel="score", ylim=(0, 1.1))
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    sns.despine(ax=ax)
    return ax


def importances(ax: Axes, g: Tensor, *, order: Sequence[int] | None = None, title: str = "") -> Axes:
    """A causal importance matrix (SPD figure 8): a row per input feature alone at 0.75, a column per subcomponent."""
    g = np.asarray(g.detach().cpu())
    g = g if order is None else g[:, list(order)]
    image = ax.imshow(g, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set(xlabel="subcomponent (permuted)", ylabel="input feature at 0.75", title=title)
    ax.figure.colorbar(image, ax=ax, label="causal importance g", shrink=0.85)
    return ax


def greedy_order(g: Tensor) -> list[int]:
    """Subcomponents permuted so that each input in turn takes its most important one still free."""
    return experiments.greedy_order(g.detach().cpu()).tolist()


def curves(ax: Axes, x: Tensor, Y: Tensor) -> Axes:
    """One line for each column of Y (points, n_features) over x, told apart by colour and line style."""
    x, Y = (np.asarray(v.detach().cpu()) for v in (x, Y))
    styles = ["-", "--", "-.", ":", (0, (5, 1))]
    for j in range(Y.shape[1]):
        ax.plot(x, Y[:, j], color=color(j), ls=styles[j % len(styles)], lw=2, label=str(j))
    sns.despine(ax=ax)
    return ax


def leaky_sigmoids() -> tuple[Figure, str]:
    """SPD's two leaky hard sigmoids, and where each lets no gradient through. Returns figure and alt text."""
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
