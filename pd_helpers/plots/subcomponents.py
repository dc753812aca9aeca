"""Pictures of SPD on residual MLPs: contributions of neurons, and importance matrices."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pd_helpers import experiments, metrics
from pd_helpers.plots.page import color, figure
from pd_helpers.plots.residual import neuron_contributions

if TYPE_CHECKING:
    from pd_helpers.experiments import Contributions


def contributions_beside(found: "Contributions", n_features: int = 10) -> tuple[Figure, str]:
    """Neuron contributions to the first features: of the target, and of each feature's subcomponent (SPD figure 6).

    Returns figure and alt text.
    """
    target, ours, n_layers = found.target[:n_features], found.components[:n_features], found.chosen.shape[1]
    fig, axes = figure(9.2, 5.6, 2, 1, sharex=True, sharey=True)
    neuron_contributions(axes[0, 0], target, n_layers=n_layers).set_title("target", fontsize=10)
    neuron_contributions(axes[1, 0], ours, n_layers=n_layers).set_title("one subcomponent for each", fontsize=10)
    axes[0, 0].set_xlabel("")
    alt = (
        f"Contributions of the neurons to each of the first {n_features} features, as dots; above those of the target, "
        "below those of one subcomponent of each W_in. The largest difference is "
        f"{(target - ours).abs().max():.3f}, where the largest contribution is {target.max():.2f}."
    )
    return fig, alt


def contribution_scatter(ax: Axes, found: "Contributions") -> Axes:
    """All neuron contributions, of the target and of each feature's subcomponent, with their correlation r.

    SPD figures 7, 10 and 11; the marker tells the layer.
    """
    n_layers = found.chosen.shape[1]
    for k, (x, y) in enumerate(
        zip(found.target.chunk(n_layers, dim=1), found.components.chunk(n_layers, dim=1), strict=True)
    ):
        label = f"layer {k}" if n_layers > 1 else None
        ax.plot(x.flatten(), y.flatten(), "os^D"[k % 4], ms=3, mew=0, alpha=0.35, color=color(k), label=label)
    ends = [found.target.min().item(), found.target.max().item()]
    ax.plot(ends, ends, color="0.2", ls="--", lw=1, zorder=0)
    ax.set(xlabel="target's contribution", ylabel="subcomponent's contribution")
    ax.text(0.05, 0.92, f"r = {found.r:.4f}", transform=ax.transAxes)
    if n_layers > 1:
        ax.legend(frameon=False, fontsize=9, loc="lower right")
    sns.despine(ax=ax)
    return ax


def readable_order(g: Tensor) -> list[int]:
    """Subcomponents in the order that shows most: the diagonal if inputs need few each, else the largest sums first."""
    if metrics.l0(g) < 3:
        return experiments.hungarian_order(g).tolist()
    return g.sum(dim=0).argsort(descending=True).tolist()


def importance_grid(columns: Sequence[tuple[str, Sequence[tuple[str, Tensor]]]]) -> Figure:
    """Importance matrices in a grid: for each column its title, and title and matrix (rows, C) from top to bottom.

    SPD figures 8, 12 and 13.
    """
    rows = len(columns[0][1])
    fig, axes = figure(9.2, 0.55 + 1.95 * rows, rows, len(columns), sharex=True, sharey=True)
    for k, (title, matrices) in enumerate(columns):
        for ax, (name, g) in zip(axes[:, k], matrices, strict=True):
            image = ax.imshow(np.asarray(g), cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
            ax.tick_params(labelsize=8)
            if k == 0:
                ax.set_ylabel(f"{name}\ninput feature", fontsize=9)
        axes[0, k].set_title(title, fontsize=9)
        axes[-1, k].set_xlabel("subcomponent", fontsize=9)
    fig.colorbar(image, ax=axes, label="causal importance g", shrink=0.7, pad=0.01)
    return fig
