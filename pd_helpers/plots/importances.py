"""Causal importance matrices as pictures, and readable orders of their columns (SPD figures 8, 12 and 13)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pd_helpers.analysis import importance_matrices, metrics
from pd_helpers.core.config import shown
from pd_helpers.plots.page import figure
from pd_helpers.runs.calls import checked


@checked()
def importances(ax: Axes, g: Shaped[Tensor, "rows C"], *, order: Sequence[int] | None = None, title: str = "") -> Axes:
    """A causal importance matrix (SPD figure 8): a row for each input feature alone at 0.75, a column per subcomponent.

    `order` permutes the columns, or chooses some.
    """
    g = np.asarray(g.detach().cpu())
    if order is not None and not all(0 <= c < g.shape[1] for c in order):
        raise ValueError(f"order must be of columns from 0 to {g.shape[1] - 1}, but is {shown(order)}; None works")
    g = g if order is None else g[:, list(order)]
    image = ax.imshow(g, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set(xlabel="subcomponent (permuted)", ylabel="input feature at 0.75", title=title)
    ax.figure.colorbar(image, ax=ax, label="causal importance g", shrink=0.85)
    return ax


@checked()
def greedy_order(g: Shaped[Tensor, "rows C"]) -> list[int]:
    """An order of the subcomponents in which each input in turn takes the most important one that is still free."""
    return importance_matrices.greedy_order(g.detach().cpu()).tolist()


@checked()
def readable_order(g: Shaped[Tensor, "rows C"]) -> list[int]:
    """A readable order of the subcomponents: along the diagonal if each input needs few, else largest sums first."""
    if metrics.l0(g) < 3:
        return importance_matrices.hungarian_order(g).tolist()
    return g.sum(dim=0).argsort(descending=True).tolist()


@checked()
def importance_grid(columns: Sequence[tuple[str, Sequence[tuple[str, Tensor]]]]) -> Figure:
    """Importance matrices in a grid (SPD figures 8, 12 and 13).

    `columns` holds, for each column of the grid, its title and a list of names and matrices (n_features, C) from top to
    bottom.
    """
    if not columns or not columns[0][1] or len({len(matrices) for _, matrices in columns}) > 1:
        raise ValueError("columns must have equally many matrices, at least one; [('a', [('embed', g)])] works")
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
