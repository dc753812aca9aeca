"""The hand-written network, its weights coloured by the function they serve."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from pd_helpers.plots.page import color

if TYPE_CHECKING:
    from pd_helpers.gated import GatedNetwork

NO_FUNCTION = (0.35, 0.1, 0.5)
"""Dark purple, for weights that serve no function."""


def gated_network(
    ax: Axes, net: "GatedNetwork", weights: Mapping[str, Tensor] | None = None, *, scale: float = 1.0
) -> Axes:
    """The hand-written network, from the bottom up, its weights coloured by function (APD figure 13).

    Circles are dimensions of the residual stream, or neurons with the number of the function that they serve. A line's
    width grows with the weight's size. `weights` (layer → matrix) are drawn in place of the network's own, such as
    those of a component; weights that serve no function in the network are dotted and purple. `scale` is that of
    circles, letters and lines, for small panels.
    """
    owners, n_functions = net.owners(), len(net.coefficients)
    stream = ["$x$", *(f"$b_{i}$" for i in range(n_functions)), "$y$"]
    width = max(net.d_mlp, len(stream))
    x_stream = np.linspace(0.12, 0.88, len(stream)) * width
    x_neurons = (np.arange(net.d_mlp) + 0.5) * width / net.d_mlp
    top = 2 * len(net.mlps)
    for x in x_stream:  # the stream itself
        ax.plot([x, x], [0, top], color="0.88", lw=5, zorder=0, solid_capstyle="round")
    for level, path in enumerate(net.layers):
        own = net.get_submodule(path).weight
        W = np.asarray((own if weights is None else weights[path]).detach().cpu())
        largest = float(own.abs().max())
        ends = (x_neurons, x_stream) if level % 2 == 0 else (x_stream, x_neurons)  # of rows and columns
        for (i, j), w in np.ndenumerate(W):
            if abs(w) < 0.002 * largest:
                continue
            serves = int(owners[path][i, j])
            look = {"color": color(serves), "ls": "-"} if serves >= 0 else {"color": NO_FUNCTION, "ls": ":"}
            lw = scale * (0.4 + 2.6 * (abs(w) / largest) ** 0.5)
            ax.plot([ends[1][j], ends[0][i]], [level, level + 1], lw=lw, zorder=1, alpha=0.85, **look)
    for level in range(0, top + 1, 2):
        ax.scatter(x_stream, np.full(len(stream), level), s=210 * scale**2, color="white", edgecolor="0.2", zorder=2)
        for x, name in zip(x_stream, stream, strict=True):
            ax.text(x, level, name, ha="center", va="center", fontsize=9 * scale, zorder=3)
    for k, owner in enumerate(net.owner.tolist()):
        shades = [color(i) for i in owner]
        ax.scatter(
            x_neurons,
            np.full(net.d_mlp, 2 * k + 1),
            s=150 * scale**2,
            color="white",
            edgecolor=shades,
            lw=1.8 * scale,
            zorder=2,
        )
        for x, i in zip(x_neurons, owner, strict=True):
            ax.text(x, 2 * k + 1, str(i), ha="center", va="center", fontsize=8 * scale, zorder=3)
    for level in range(top + 1):
        name = f"neurons of\nlayer {level // 2}" if level % 2 else "stream"
        ax.text(-0.4, level, name, ha="right", va="center", fontsize=9)
    ax.set(xlim=(-3.2 * width / 20, width + 0.2), ylim=(-0.3, top + 0.3))
    ax.set_axis_off()
    return ax


def gated_outputs(ax: Axes, x: Tensor, wanted: Tensor, found: Tensor) -> Axes:
    """The functions (n_functions, points) as broad lines, and what was found of each dashed (APD figure 12)."""
    for i, (target, output) in enumerate(zip(wanted, found, strict=True)):
        ax.plot(x, target, color=color(i), lw=5, alpha=0.3, solid_capstyle="butt")
        ax.plot(x, output, color=color(i), lw=1.8, ls="--")
        ax.text(float(x[-1]) * 1.02, float(target[-1]), str(i), color=color(i), va="center", fontsize=10)
    ax.set(xlabel="$x$", ylabel="output $y$")
    ax.spines[["top", "right"]].set_visible(False)
    return ax
