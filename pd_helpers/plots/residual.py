"""Residual MLPs: their shape, their responses, their neurons."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from pd_helpers.plots.page import COLORS, POSITIVE, VIRIDIS, color, figure

if TYPE_CHECKING:
    from pd_helpers.residual_mlp import ResidualMLP


def residual_network(ax: Axes, n_layers: int = 1) -> Axes:
    """What a residual MLP consists of, as a diagram from left to right (APD figures 5 and 9)."""
    step, up = 5.0, 1.6
    end = step * n_layers + 1.5

    def box(x: float, y: float, text: str, **look) -> None:
        ax.text(x, y, text, ha="center", va="center", fontsize=11, zorder=3, bbox={"boxstyle": "round,pad=0.4", **look})

    def arrow(*points: tuple[float, float]) -> None:
        ax.plot(*zip(*points, strict=True), color="0.2", lw=1.2, zorder=1)
        ax.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "->", "color": "0.2", "lw": 1.2})

    fixed, trained = {"fc": "0.93", "ec": "0.4", "ls": "--"}, {"fc": "white", "ec": POSITIVE, "lw": 1.6}
    ax.plot([0, end], [0, 0], color="0.75", lw=6, zorder=0, solid_capstyle="butt")
    arrow((-0.9, 0), (0.0, 0))
    arrow((end, 0), (end + 0.9, 0))
    for k in range(n_layers):
        x, end_x = 1.0 + step * k, 0.5 + step * (k + 1)
        layer = "" if n_layers == 1 else f",{k}"
        arrow((x, 0), (x, up), (end_x, up), (end_x, 0.2))
        box(x + 0.7, up, rf"$W_{{\mathrm{{in}}{layer}}}$", **trained)
        box((x + end_x) / 2, up, "ReLU", fc="white", ec="0.4")
        box(end_x - 0.7, up, rf"$W_{{\mathrm{{out}}{layer}}}$", **trained)
        ax.text(end_x, 0, "+", ha="center", va="center", fontsize=13, zorder=3)
        ax.scatter([end_x], [0], s=170, color="white", edgecolor="0.2", zorder=2)
    ax.text(end / 2, -0.3, "residual stream", ha="center", va="top", fontsize=10)
    box(0, 0, "$W_E$", **fixed)
    box(end, 0, "$W_U$", **fixed)
    ax.text(-1.05, 0, "$x$", ha="right", va="center", fontsize=12)
    ax.text(end + 1.05, 0, "$y$", ha="left", va="center", fontsize=12)
    ax.set(xlim=(-1.6, end + 1.6), ylim=(-0.9, up + 0.6))
    ax.set_axis_off()
    return ax


def responses(net: "ResidualMLP", features: Sequence[int] | None = None, n_points: int = 1000) -> tuple[Figure, str]:
    """What a residual MLP answers when one feature is on (APD figures 14 and 19; all features: 15 and 20).

    Left: all outputs with feature i at 1, over the labels. Right: output i as feature i runs over [-1, 1], over the
    labels and over what the residual stream passes on by itself. Returns figure and alt text.
    """
    features = list(range(net.n_features)) if features is None else list(features)
    values = torch.linspace(-1, 1, n_points)
    with torch.no_grad():
        device, eye = net.W_E.device, torch.eye(net.n_features)
        Y = net(eye[features].to(device)).cpu()  # (shown, n_features)
        sweeps = torch.stack([net(values[:, None].to(device) * eye[i].to(device))[:, i].cpu() for i in features])
        skip = (net.W_U @ net.W_E).diag()[features].cpu()
    fig, axes = figure(9, 3.6, 1, 2, width_ratios=[1.25, 1])
    left, right = axes[0]
    one = len(features) == 1
    shades = [COLORS[0]] if one else VIRIDIS(np.linspace(0, 1, net.n_features))[features]
    label_look = {"color": COLORS[3], "zorder": 3}
    mixed = np.random.default_rng(0).permutation(Y.numel())  # so that no feature hides all others
    rows, places = np.unravel_index(mixed, Y.shape)
    left.scatter(places, Y[rows, places], s=16 if one else 4, color=np.asarray(shades)[rows], label="network")
    for k in np.random.default_rng(0).permutation(len(features)):
        right.plot(values, sweeps[k], color=shades[k], lw=2.2 if one else 0.7, label="network" if one else None)
    wanted = 2.0 * eye[features]
    if one:
        left.plot(wanted[0], "x", ms=5, mew=1.2, label="label", **label_look)
        left.set_xlabel(f"output (feature {features[0]} is 1)")
        right.set(xlabel=f"value of feature {features[0]}", ylabel=f"output {features[0]}")
        right.plot(values, skip * values, ":", color="0.35", lw=1.8, label="skip alone")
    else:
        left.plot(features, [2.0] * len(features), "x", ms=3.5, mew=0.9, label="label", **label_look)
        left.axhline(0, lw=1.2, **label_look)
        left.set_xlabel("output (one feature is 1)")
        right.set(xlabel="value of feature i", ylabel="output i")
        scale = ScalarMappable(Normalize(0, net.n_features - 1), VIRIDIS)
        fig.colorbar(scale, ax=right, label="feature i", pad=0.02)
    right.plot(values, values + values.clamp(min=0), "--", lw=1.8, label="label", **label_look)
    left.set(ylabel="value", ylim=(-0.35, 2.15))
    right.set(ylim=(-1.25, 2.15))
    for ax in (left, right):
        ax.legend(frameon=False, fontsize=9, loc="center right" if ax is left else "upper left")
        sns.despine(ax=ax)
    own = Y[torch.arange(len(features)), features]
    others = Y[wanted == 0]
    told = f"{own[0]:.2f}" if one else f"between {own.min():.2f} and {own.max():.2f}"
    who = f"feature {features[0]}" if one else "each feature in turn"
    alt = (
        f"Left: with {who} at 1, its own output is {told} where the label is 2, and the other outputs, whose labels "
        f"are 0, lie between {others.min():.2f} and {others.max():.2f}. Right: as the feature runs from -1 to 1, its "
        "output is close to the label up to 0, and from there on rises less steeply than the label."
    )
    return fig, alt


def neuron_contributions(ax: Axes, contributions: Tensor, *, n_layers: int = 1, threshold: float = 0.1) -> Axes:
    """Contributions (n_features, n_neurons) of all neurons to each feature (top rows of APD figures 6 and 10).

    The marker tells the layer; contributions above `threshold` have the neuron's number.
    """
    values = np.asarray(contributions.detach().cpu())
    layer = np.repeat(np.arange(n_layers), values.shape[1] // n_layers)
    for i, row in enumerate(values):
        for k in range(n_layers):
            ax.plot(
                np.full((layer == k).sum(), i),
                row[layer == k],
                "os^D"[k % 4],
                color=color(k),
                ms=4,
                alpha=0.7,
                mew=0,
                label=f"layer {k}" if n_layers > 1 and i == 0 else None,
            )
        named, lowest = [n for n in row.argsort()[::-1] if row[n] > threshold], [np.inf, np.inf]
        for rank, n in enumerate(named):  # right and left in turn, never closer than a line
            right = rank % 2 == 0
            y = lowest[right] = min(row[n], lowest[right] - 0.05 * values.max())
            ax.text(i + (0.12 if right else -0.12), y, str(n), fontsize=8, va="center", ha="left" if right else "right")
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.set(xlabel="feature", ylabel="contribution", xticks=range(len(values)), xlim=(-0.5, len(values) - 0.5))
    if n_layers > 1:
        ax.legend(frameon=False, fontsize=9, ncols=n_layers)
    sns.despine(ax=ax)
    return ax
