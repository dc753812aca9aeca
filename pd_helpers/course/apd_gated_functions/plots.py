"""The functions of the hand-written network and what components compute of them (APD figure 12)."""

from matplotlib.axes import Axes
from torch import Tensor

from pd_helpers.plots.page import color
from pd_helpers.runs.calls import checked


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
