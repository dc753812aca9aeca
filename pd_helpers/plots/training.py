"""Losses over the course of training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import seaborn as sns
from matplotlib.axes import Axes

from pd_helpers.plots.page import color
from pd_helpers.runs.calls import check_columns, checked

if TYPE_CHECKING:
    import pandas


@checked()
def losses(ax: Axes, history: "pandas.DataFrame", names: Sequence[str] | None = None) -> Axes:
    """Unweighted losses over the training step, on a logarithmic axis.

    `names` are columns of the history; None means all losses that are not always zero.
    """
    check_columns("history", history, ["step", *(names or ())], "run.history")
    other_columns = {"step", "mmcs", "ml2r"}
    for k, name in enumerate(names or [n for n in history if n not in other_columns and history[n].any()]):
        ax.plot(history["step"], history[name], color=color(k), ls=["-", "--", "-.", ":"][k % 4], label=name)
    ax.set(xlabel="training step", ylabel="loss (unweighted)", yscale="log")
    ax.legend(fontsize=8, frameon=False)
    sns.despine(ax=ax)
    return ax
