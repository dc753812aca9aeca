"""The papers' networks as drawings: toy models of superposition, residual MLPs, and the hand-written network."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from torch import Tensor

from pd_helpers.plots.page import NEGATIVE, POSITIVE, color
from pd_helpers.runs.calls import checked
from pd_helpers.targets.gated_functions import GatedNetwork


@checked()
def network(ax: Axes, W: Shaped[Tensor, "d_out d_in"], *, scale: float = 1.0) -> Axes:
    """A toy model of superposition as a drawing: W (n_hidden, n_features) leads from inputs to hidden, Wᵀ to outputs.

    The width of a line shows the size of the weight, divided by `scale`. Positive weights are solid blue lines, and
    negative ones dashed red lines.
    """
    W = np.asarray(W.detach().cpu())
    n_hidden, n_features = W.shape
    x_features = np.arange(n_features) - (n_features - 1) / 2
    x_hidden = (np.arange(n_hidden) - (n_hidden - 1) / 2) * 2
    for j in range(n_features):
        for i in range(n_hidden):
            w = W[i, j] / scale
            if abs(w) < 0.02:
                continue
            look = {
                "color": POSITIVE if w > 0 else NEGATIVE,
                "ls": "-" if w > 0 else (0, (3, 1.2)),
                "lw": 2.6 * abs(w),
            }
            ax.plot([x_features[j], x_hidden[i]], [0, 1], zorder=1, **look)
            ax.plot([x_hidden[i], x_features[j]], [1, 2], zorder=1, **look)
    nodes = {"s": 42, "color": "white", "edgecolor": "0.2", "zorder": 2}
    ax.scatter(x_features, np.zeros(n_features), **nodes)
    ax.scatter(x_hidden, np.ones(n_hidden), **nodes)
    ax.scatter(x_features, 2 * np.ones(n_features), **nodes)
    for j, x in enumerate(x_features):
        ax.text(x, -0.24, str(j), ha="center", va="center", fontsize=8, color=color(j))
    ax.set(xlim=(x_features[0] - 0.6, x_features[-1] + 0.6), ylim=(-0.45, 2.25))
    ax.set_axis_off()
    return ax


@checked()
def residual_network(ax: Axes, n_layers: int = 1) -> Axes:
    """The parts of a residual MLP as a diagram from left to right (APD figures 5 and 9)."""
    step, up = 5.0, 1.6
    end = step * n_layers + 1.5

    def box(x: float, y: float, text: str, **look) -> None:
        ax.text(x, y, text, ha="center", va="center", fontsize=11, zorder=3, bbox={"boxstyle": "round,pad=0.4", **look})

    def arrow(*points: tuple[float, float]) -> None:
        ax.plot(*zip(*points, strict=True), color="0.2", lw=1.2, zorder=1)
        ax.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "->", "color": "0.2", "lw": 1.2})

    fixed_look, trained_look = {"fc": "0.93", "ec": "0.4", "ls": "--"}, {"fc": "white", "ec": POSITIVE, "lw": 1.6}
    ax.plot([0, end], [0, 0], color="0.75", lw=6, zorder=0, solid_capstyle="butt")
    arrow((-0.9, 0), (0.0, 0))
    arrow((end, 0), (end + 0.9, 0))
    for k in range(n_layers):
        x, end_x = 1.0 + step * k, 0.5 + step * (k + 1)
        layer = "" if n_layers == 1 else f",{k}"
        arrow((x, 0), (x, up), (end_x, up), (end_x, 0.2))
        box(x + 0.7, up, rf"$W_{{\mathrm{{in}}{layer}}}$", **trained_look)
        box((x + end_x) / 2, up, "ReLU", fc="white", ec="0.4")
        box(end_x - 0.7, up, rf"$W_{{\mathrm{{out}}{layer}}}$", **trained_look)
        ax.text(end_x, 0, "+", ha="center", va="center", fontsize=13, zorder=3)
        ax.scatter([end_x], [0], s=170, color="white", edgecolor="0.2", zorder=2)
    ax.text(end / 2, -0.3, "residual stream", ha="center", va="top", fontsize=10)
    box(0, 0, "$W_E$", **fixed_look)
    box(end, 0, "$W_U$", **fixed_look)
    ax.text(-1.05, 0, "$x$", ha="right", va="center", fontsize=12)
    ax.text(end + 1.05, 0, "$y$", ha="left", va="center", fontsize=12)
    ax.set(xlim=(-1.6, end + 1.6), ylim=(-0.9, up + 0.6))
    ax.set_axis_off()
    return ax


NO_FUNCTION = (0.35, 0.1, 0.5)
"""Dark purple, for weights that serve no function."""


@checked()
def gated_network(
    ax: Axes, net: GatedNetwork, weights: Mapping[str, Tensor] | None = None, *, scale: float = 1.0
) -> Axes:
    """The hand-written network from bottom to top, with its weights coloured by function (APD figure 13).

    Circles are dimensions of the residual stream, or neurons with the number of the function that they serve. The width
    of a line grows with the size of the weight. `weights` (layer → matrix), such as those of a component, are drawn in
    place of the network's own; weights that serve no function in the network are dotted and purple. For small panels,
    `scale` shrinks circles, letters and lines.
    """
    owners, n_functions = net.owners(), len(net.coefficients)
    stream = ["$x$", *(f"$b_{i}$" for i in range(n_functions)), "$y$"]
    width = max(net.d_mlp, len(stream))
    x_stream = np.linspace(0.12, 0.88, len(stream)) * width
    x_neurons = (np.arange(net.d_mlp) + 0.5) * width / net.d_mlp
    top = 2 * len(net.mlps)
    for x in x_stream:  # the residual stream
        ax.plot([x, x], [0, top], color="0.88", lw=5, zorder=0, solid_capstyle="round")
    for level, path in enumerate(net.layers):
        own_weight = net.get_submodule(path).weight
        W = np.asarray((own_weight if weights is None else weights[path]).detach().cpu())
        largest = float(own_weight.abs().max())
        ends = (x_neurons, x_stream) if level % 2 == 0 else (x_stream, x_neurons)  # of rows and of columns
        for (i, j), w in np.ndenumerate(W):
            if abs(w) < 0.002 * largest:
                continue
            function = int(owners[path][i, j])
            look = {"color": color(function), "ls": "-"} if function >= 0 else {"color": NO_FUNCTION, "ls": ":"}
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
