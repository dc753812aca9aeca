"""The functions of the hand-written network, what components compute of them (APD figure 12), and training."""

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pd_helpers.plots.page import color, figure
from pd_helpers.runs.calls import checked

if TYPE_CHECKING:
    import pandas


@checked()
def gated_outputs(ax: Axes, x: Tensor, targets: Tensor, outputs: Tensor) -> Axes:
    """The target's functions (n_functions, points) as broad lines, and the outputs of components as dashed lines."""
    for i, (target, output) in enumerate(zip(targets, outputs, strict=True)):
        ax.plot(x, target, color=color(i), lw=5, alpha=0.3, solid_capstyle="butt")
        ax.plot(x, output, color=color(i), lw=1.8, ls="--")
        ax.text(float(x[-1]) * 1.02, float(target[-1]), str(i), color=color(i), va="center", fontsize=10)
    ax.set(xlabel="$x$", ylabel="output $y$")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


@checked()
def leaving(table: "pandas.DataFrame") -> tuple[Figure, str]:
    """Losses (left), and the share of activity that is asleep (right), against the step: the table of `ideas.watched`.

    Returns the figure and its alt text.
    """
    fig, axes = figure(9.2, 3.3, 1, 2)
    place = range(len(table))
    for i, (name, style) in enumerate(
        (("total", "-"), ("simplicity", "--"), ("minimality", ":"), ("faithfulness", "-."))
    ):
        axes[0, 0].plot(
            place, table[name], style, lw=2, marker="o", ms=4, color="0.1" if i == 0 else color(i), label=name
        )
    axes[0, 0].set(ylabel="loss times its coefficient", ylim=(0, 1.3 * table["total"].max()))
    axes[0, 0].legend(frameon=False, fontsize=9, ncols=2, loc="upper left")
    axes[0, 1].plot(place, table["asleep"], lw=2, marker="o", ms=4, color=color(3))
    axes[0, 1].set(ylabel="share asleep, of the awake", ylim=(0, 1))
    for ax in axes[0]:
        ax.set(xlabel="training step", xticks=place, xticklabels=table["step"])
        ax.spines[["top", "right"]].set_visible(False)
    first, last = table.iloc[0], table.iloc[-1]
    alt = (
        f"Left: the total loss goes from {first.total:.3f} at the mechanisms to {last.total:.3f} after {last.step:.0f} "
        f"steps; simplicity falls from {first.simplicity:.3f} to {last.simplicity:.3f}, and minimality rises from "
        f"{first.minimality:.3f} to {last.minimality:.3f}. Right: the share of awake neurons that the sparse network "
        f"leaves asleep rises from {first.asleep:.0%} to {last.asleep:.0%}."
    )
    return fig, alt
