"""Ablated components of residual MLPs: the errors of scrubbing, and of one component for each feature.

APD figures 7 and 8, 16 to 18, and 21 to 25.
"""

import numpy as np
import seaborn as sns
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pd_helpers.analysis.scrubbing import Scrubbed, SingleFeature
from pd_helpers.core.config import shown
from pd_helpers.plots.page import COLORS, GREY, color, figure
from pd_helpers.runs.calls import COMMON, checked

KEPT, ABLATED, ACTIVE, TARGET = COLORS[4], COLORS[2], COLORS[1], COLORS[0]
"""Colours: own components kept (scrubbed), own components ablated (anti-scrubbed), own components only, the target."""
LOWEST = 1e-7
"""Errors below this are counted in the first bin of a histogram."""


@checked()
def halves(additions: dict[str, Tensor], feature: int) -> tuple[Figure, str]:
    """What the MLPs add when one feature is on and random halves of the components are ablated (APD figures 7, 24).

    `additions` is the result of `scrubbing.ablate_halves`. A bar shows the range over all halves at one output. Returns
    the figure and its alt text.
    """
    parts = {"scrubbed", "anti_scrubbed", "topk", "target"}
    if set(additions) != parts or not 0 <= feature < additions["target"].shape[1]:
        raise ValueError(
            f"additions must be of {', '.join(sorted(parts))}, and feature one of theirs, but they are "
            f"{shown(sorted(additions))} and {shown(feature)}; halves(scrubbing.ablate_halves(run, 42, 100, "
            "torch.Generator()), 42) works"
        )
    fig, axes = figure(9.2, 5.2, 2, 2, width_ratios=[3.2, 1], sharey=True)
    n, places = len(additions["scrubbed"]), np.arange(additions["target"].shape[1])
    at_feature = {name: table[:, feature] for name, table in additions.items()}
    kinds = {"scrubbed": ("its component kept", KEPT), "anti_scrubbed": ("its component ablated too", ABLATED)}
    low = min(table.min().item() for table in additions.values())
    high = max(table.max().item() for table in additions.values())
    bins = np.linspace(low, high, 60)
    for (left, right), (name, (title, shade)) in zip(axes, kinds.items(), strict=True):
        table = additions[name]
        left.vlines(places, table.amin(0), table.amax(0), color=shade, lw=3, alpha=0.55, label=f"{n:,} random halves")
        left.plot(places, additions["target"][0], "o", ms=3, color=TARGET, label="target")
        left.plot(places, additions["topk"][0], "x", ms=4, mew=0.9, color=ACTIVE, label="its component alone")
        left.set_title(f"half of the components off, {title}", fontsize=10)
        left.set(xlim=(-1.5, len(places) + 0.5), ylabel="MLP adds")
        left.legend(frameon=False, fontsize=8, ncols=3, loc="upper right")
        right.hist(at_feature[name].numpy(), bins=bins, orientation="horizontal", color=shade, alpha=0.7)
        right.axhline(at_feature["target"].item(), color=TARGET, lw=1.5, label="target")
        right.axhline(at_feature["topk"].item(), color=ACTIVE, ls="--", lw=1.5, label="alone")
        right.set_title(f"output {feature}", fontsize=10)
    axes[0, 1].legend(frameon=False, fontsize=8)
    axes[1, 0].set_xlabel(f"output (feature {feature} is 1)")
    axes[1, 1].set_xlabel("halves")
    axes[0, 0].set_ylim(low - 0.05, high + 0.25 * (high - low))
    for ax in axes.flat:
        sns.despine(ax=ax)
    is_other = torch.arange(len(places)) != feature
    deviations = {name: (additions[name] - additions["target"])[:, is_other].std().item() for name in kinds}
    ranges = {name: f"from {at_feature[name].min():.2f} to {at_feature[name].max():.2f}" for name in kinds}
    means = {name: f"{values.mean():.2f}" for name, values in at_feature.items()}
    alt = (
        f"With feature {feature} at 1, the target's MLPs add {means['target']} to output {feature}, its component "
        f"alone {means['topk']}. With half of all components off and its component kept, {means['scrubbed']} on "
        f"average over {n:,} draws, {ranges['scrubbed']}; with its component ablated too, {means['anti_scrubbed']}, "
        f"{ranges['anti_scrubbed']}. The other outputs differ from the target's by {deviations['scrubbed']:.3f} and "
        f"{deviations['anti_scrubbed']:.3f} (standard deviations)."
    )
    return fig, alt


@checked()
def scrub_histograms(
    scrubbed: Scrubbed, published: dict[str, tuple[float, float | None]] | None = None
) -> tuple[Figure, str]:
    """Errors with half of all components ablated, over the training distribution (APD figures 8 and 25).

    `published` means, in the form that a preset has them, are marked above ours. Inputs with no feature on have no
    error: they count in the means but are left out of the histograms. Returns the figure and its alt text.
    """
    looks = {
        "topk": ("top-k", ACTIVE, "-"),
        "scrubbed": ("scrubbed: own components kept", KEPT, "--"),
        "anti_scrubbed": ("anti-scrubbed: own ablated too", ABLATED, "-."),
    }
    fig, axes = figure(9, 3.9)
    ax, bins = axes[0, 0], np.geomspace(LOWEST, 0.03, 80)
    means = []
    for name, (label, shade, line) in looks.items():
        errors = getattr(scrubbed, name)
        positive_errors = errors[scrubbed.monosemantic > 0].double().clamp(bins[0], bins[-1])
        counts, _ = np.histogram(positive_errors.numpy(), bins=bins)
        ax.stairs(counts, bins, color=shade, ls=line, lw=1.8, label=f"{label}, mean {errors.mean():.1e}")
        ax.stairs(counts, bins, color=shade, fill=True, alpha=0.15)
        ax.axvline(errors.mean().item(), color=shade, ls=line, lw=1)
        means.append(f"{label.split(':')[0]} {errors.mean():.1e}")
    mono = scrubbed.monosemantic.mean().item()
    ax.axvline(mono, color=GREY, lw=2, label=f"monosemantic network, mean {mono:.1e}")
    top = ax.get_ylim()[1]
    for name, (value, _) in (published or {}).items():
        shade = {"monosemantic": GREY}.get(kind := name.removesuffix("_mse")) or looks[kind][1]
        ax.plot(value, 1.04 * top, "v", ms=8, color=shade, mec="0.1", clip_on=False, zorder=4)
    if published:
        ax.plot([], [], "v", ms=8, color="white", mec="0.1", label="the paper's means")
    ax.set(xscale="log", xlim=(LOWEST, 0.03), ylim=(0, 1.1 * top))
    ax.set(xlabel="mean squared error against the target's output", ylabel="inputs")
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    sns.despine(ax=ax)
    empty = (scrubbed.monosemantic == 0).float().mean().item()
    alt = (
        f"Histograms of the error on {len(scrubbed.topk):,} inputs, with logarithmic bins; {empty:.0%} of the inputs, "
        f"with nothing on, are left out of the picture but count in the means. Means: {', '.join(means)}, monosemantic "
        f"{mono:.1e}."
    )
    return fig, alt


class FeatureErrors:
    """A panel with one point for each feature, sorted by the target's own error (one of APD figures 16, 17, 21, 22)."""

    @checked()
    def __init__(self, ax: Axes, n_features: int, label: str, top: float):
        places = np.arange(n_features)
        self.target = ax.plot(places, np.zeros(n_features), color=TARGET, lw=2, label="target")[0]
        self.errors = ax.plot(places, np.zeros(n_features), "o", ms=4, color=ACTIVE, label=label)[0]
        self.drops = ax.vlines(places, 0, 1, color=ACTIVE, lw=1)
        ax.set(xlabel="features, by the target's error", xlim=(-2, n_features + 1), ylim=(0, 1e3 * top))
        ax.set_ylabel("MSE against the labels (10⁻³)")
        ax.legend(frameon=False, fontsize=8, loc="upper left")
        sns.despine(ax=ax)

    def move(self, target: Tensor, errors: Tensor) -> None:
        """Show these errors against the labels, each (n_features,): of the target, and of the masked network."""
        order = target.argsort()
        target, errors = (1e3 * target[order]).tolist(), (1e3 * errors[order]).tolist()
        self.target.set_ydata(target)
        self.errors.set_ydata(errors)
        ends = zip(target, errors, strict=True)
        self.drops.set_segments([[(i, low), (i, high)] for i, (low, high) in enumerate(ends)])


@checked()
def highest_error(*errors: SingleFeature) -> float:
    """The value at which the axis of `FeatureErrors` should end in order to show all of these errors."""
    if not errors:
        raise TypeError(f"errors must be at least one; {COMMON['SingleFeature']} works")
    return 1.25 * max(values.nan_to_num().max().item() for one_run in errors for values in one_run[-3:])


@checked()
def feature_errors(errors: SingleFeature, top_k: float) -> tuple[Figure, str]:
    """Errors on inputs with one feature on: one component, and the batch top-k (APD figures 16 and 17, 21 and 22).

    Returns the figure and its alt text.
    """
    fig, axes = figure(9, 4.8, 2, 1, sharex=True)
    panels = {
        "one component": errors.top_1_label_error,
        f"batch top-k = {top_k:g}": errors.batch_top_k_label_error,
    }
    for ax, (label, values) in zip(axes[:, 0], panels.items(), strict=True):
        FeatureErrors(ax, len(values), label, highest_error(errors)).move(errors.label_error, values)
    axes[0, 0].set_xlabel("")
    worst = [(values / errors.label_error).nan_to_num().max() for values in panels.values()]
    above, below = (f"{values.nanmean():.2e} with {label}" for label, values in panels.items())
    alt = (
        f"Error against the labels for each of {len(errors.top_1)} features, on inputs with that feature alone on, "
        f"sorted by the target's own error, which is {errors.label_error.nanmean():.2e} on average. Above, {above}; "
        f"below, {below}. At worst they are {worst[0]:.1f} and {worst[1]:.1f} times the target's."
    )
    return fig, alt


@checked()
def active_components(ax: Axes, errors: SingleFeature, label: str | None = None, look: str = "o", c: int = 0) -> Axes:
    """Number of components that the batch top-k keeps for each feature, over the error with only one of them.

    `look` is a format string of matplotlib for the marker, and `c` the number of its colour (APD figures 18 and 23).
    """
    ax.plot(1e4 * errors.top_1, errors.n_active, look, ms=4.5, mfc="none", color=color(c), label=label)
    ax.set(xlabel="MSE against the target, with one component (10⁻⁴)", ylabel="active components, mean")
    sns.despine(ax=ax)
    return ax


class SharedComponents:
    """A panel with one point for each component: its attributions on the two features that it serves most.

    The point of a component for one feature lies low, and that of a component for two features lies on the diagonal.
    Components that come first for two features or more are squares.
    """

    @checked()
    def __init__(self, ax: Axes, top: float):
        ax.plot([0, top], [0, top], ":", color="0.5", lw=1)
        ax.text(0.62 * top, 0.66 * top, "alike", fontsize=8, color="0.35", rotation=36)
        self.all = ax.plot([], [], "o", ms=4, mfc="none", color=TARGET, label="component")[0]
        self.two = ax.plot([], [], "s", ms=6, color=ACTIVE, label="first for two")[0]
        ax.set(xlim=(0, top), ylim=(0, top), xlabel="attribution: feature served most", ylabel="feature served next")
        ax.legend(frameon=False, fontsize=8, loc="upper left")
        sns.despine(ax=ax)

    def move(self, A: Float[Tensor, "n_features C"]) -> None:
        """Show the attributions of all components, with one feature on in each row."""
        first, second = A.topk(2, dim=0).values  # (C,) each
        counts = torch.bincount(A.argmax(dim=1), minlength=A.shape[1])
        self.all.set_data(first[counts < 2], second[counts < 2])
        self.two.set_data(first[counts > 1], second[counts > 1])
