"""Pictures of feature splitting: what is used, against what is offered."""

from collections.abc import Mapping

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from pd_helpers.plots.page import color


def against_room(ax: Axes, lines: Mapping[str, Mapping[int, float]], ylabel: str, everything: bool = False) -> Axes:
    """One line each of what is used, by how many components were offered: label → {offered: used}; both logarithmic.

    `everything` adds the diagonal, on which all that is offered is used.
    """
    for k, (label, used) in enumerate(lines.items()):
        look = {"marker": "os^Dv"[k % 5], "ls": ["-", "--", "-.", ":"][k % 4], "color": color(k)}
        ax.plot(list(used), list(used.values()), label=label, lw=1.8, **look)
    if everything:
        sizes = [n for used in lines.values() for n in used]
        ax.plot([min(sizes), max(sizes)], [min(sizes), max(sizes)], color="0.6", lw=1, label="all that is offered")
    ax.set(xscale="log", yscale="log", xlabel="subcomponents or latents on offer", ylabel=ylabel)
    if everything:
        ax.set_ylim(top=4 * max(sizes))  # room for the legend
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    sns.despine(ax=ax)
    return ax
