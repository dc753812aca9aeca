"""The responses of a residual MLP to single features (APD figures 14, 15, 19 and 20)."""

from collections.abc import Sequence

import numpy as np
import seaborn as sns
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from pd_helpers.plots.page import COLORS, VIRIDIS, figure
from pd_helpers.runs.calls import checked
from pd_helpers.targets.residual_mlp import ResidualMLP


@checked()
def responses(net: ResidualMLP, features: Sequence[int] | None = None, n_points: int = 1000) -> tuple[Figure, str]:
    """The output of a residual MLP when one feature is on (APD figures 14 and 19; for all features, 15 and 20).

    Left: all outputs with feature i at 1, and the labels. Right: output i as feature i runs from -1 to 1, the labels,
    and what the residual stream passes on by itself. Returns the figure and its alt text.
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
    order = np.random.default_rng(0).permutation(Y.numel())  # random, so that no feature covers all others
    rows, places = np.unravel_index(order, Y.shape)
    left.scatter(places, Y[rows, places], s=16 if one else 4, color=np.asarray(shades)[rows], label="network")
    for k in np.random.default_rng(0).permutation(len(features)):
        right.plot(values, sweeps[k], color=shades[k], lw=2.2 if one else 0.7, label="network" if one else None)
    label = 2.0 * eye[features]
    if one:
        left.plot(label[0], "x", ms=5, mew=1.2, label="label", **label_look)
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
    own_outputs = Y[torch.arange(len(features)), features]
    other_outputs = Y[label == 0]
    size = f"{own_outputs[0]:.2f}" if one else f"between {own_outputs.min():.2f} and {own_outputs.max():.2f}"
    other_sizes = f"between {other_outputs.min():.2f} and {other_outputs.max():.2f}"
    subject = f"feature {features[0]}" if one else "each feature in turn"
    alt = (
        f"Left: with {subject} at 1, its own output is {size} where the label is 2, and the other outputs, whose "
        f"labels are 0, lie {other_sizes}. Right: as the feature runs from -1 to 1, its "
        "output is close to the label up to 0, and from there on rises less steeply than the label."
    )
    return fig, alt
