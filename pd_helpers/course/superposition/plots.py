"""How many features a toy model represents, as a picture of the columns of W (notebook 02)."""

from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pd_helpers.plots.page import color
from pd_helpers.runs.calls import check_columns, checked

if TYPE_CHECKING:
    import pandas


@checked()
def phases(ax: Axes, table: "pandas.DataFrame") -> Axes:
    """Columns of W, and the number of features represented, for each number of features and each feature probability.

    `table` is the result of `ideas.sweep`.
    """
    check_columns(
        "table", table, ["n_features", "feature_probability", "represented", "kept"], "the result of ideas.sweep"
    )
    sizes, chances = (sorted(table[key].unique()) for key in ("n_features", "feature_probability"))
    for row in table.itertuples():
        x, y = chances.index(row.feature_probability), sizes.index(row.n_features)
        W = 0.3 * np.asarray(row.kept["W"]) + np.array([[x], [y]])
        n_lost = row.n_features - row.represented
        ax.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color="0.93" if n_lost else "white", zorder=0))
        for j, end in enumerate(W.T[: row.n_features]):
            ax.plot([x, end[0]], [y, end[1]], color=color(j), lw=1.4, solid_capstyle="round")
        ax.text(x + 0.45, y - 0.4, row.represented, ha="right", fontsize=7, color="0.2")
    ax.set(xlim=(-0.5, len(chances) - 0.5), ylim=(-0.5, len(sizes) - 0.5), aspect="equal")
    ax.set(xlabel="feature probability p", ylabel="features m₂", yticks=range(len(sizes)), yticklabels=sizes)
    ax.set_xticks(range(len(chances)), [f"{p:g}" for p in chances])
    ax.tick_params(length=0, labelsize=8)
    sns.despine(ax=ax, left=True, bottom=True)
    return ax
