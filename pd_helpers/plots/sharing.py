"""APD on residual MLPs: what each component does, what its absence does, and who shares it (APD figures 6 to 25)."""

from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pd_helpers.plots.page import COLORS, GREY, color, figure
from pd_helpers.plots.residual import neuron_contributions

if TYPE_CHECKING:
    from pd_helpers.experiments import Contributions, Scrubbed, SingleFeature

KEPT, ABLATED, ACTIVE, TARGET = COLORS[4], COLORS[2], COLORS[1], COLORS[0]
"""Colours of ablation: own components kept (scrubbed), ablated (anti-scrubbed), only they on (top-k); the target."""
LOWEST = 1e-7
"""Errors below this stand in the first bin of a histogram."""


def contribution_pair(found: "Contributions", n_features: int = 10) -> tuple[Figure, str]:
    """Neuron contributions of the target, and of each feature's predominant component (APD figures 6 and 10)."""
    n_layers = found.chosen.shape[1]
    fig, axes = figure(9, 6, 2, 1, sharex=True, sharey=True)
    both = (found.target[:n_features], found.components[:n_features])
    for ax, values, title in zip(axes[:, 0], both, ("target", "predominant component"), strict=True):
        neuron_contributions(ax, values, n_layers=n_layers).set_title(title, fontsize=10)
    owners = [f"{i}\n({c})" for i, c in enumerate(found.chosen[:n_features, 0].tolist())]
    axes[0, 0].set_xlabel("")
    axes[1, 0].set_xlabel("feature (its component)")
    axes[1, 0].set_xticks(range(n_features), labels=owners)
    if n_layers > 1:
        axes[1, 0].get_legend().remove()
    r = torch.corrcoef(torch.stack([values.flatten() for values in both]))[0, 1]
    large = [f"{(values > 0.1).sum(dim=1).float().mean():.1f}" for values in both]
    alt = (
        f"Contributions of {found.target.shape[1]} neurons to each of the first {n_features} features, above in the "
        f"target and below in the component that contributes most. On average {large[0]} neurons of a feature are "
        f"above 0.1 in the target and {large[1]} in the component; the largest values are {both[0].max():.2f} and "
        f"{both[1].max():.2f}. The correlation of the two pictures is {r:.2f}."
    )
    return fig, alt


def halves(found: dict[str, Tensor], feature: int) -> tuple[Figure, str]:
    """What the MLPs add when one feature is on and random halves of the components are ablated (APD figures 7, 24).

    `found` is what `experiments.ablate_halves` gives. A bar is the range over all halves at one output.
    """
    fig, axes = figure(9.2, 5.2, 2, 2, width_ratios=[3.2, 1], sharey=True)
    n, places = len(found["scrubbed"]), np.arange(found["target"].shape[1])
    own = {name: table[:, feature] for name, table in found.items()}
    kinds = {"scrubbed": ("its component kept", KEPT), "anti_scrubbed": ("its component ablated too", ABLATED)}
    low, high = min(table.min().item() for table in found.values()), max(table.max().item() for table in found.values())
    bins = np.linspace(low, high, 60)
    for (left, right), (name, (title, shade)) in zip(axes, kinds.items(), strict=True):
        table = found[name]
        left.vlines(places, table.amin(0), table.amax(0), color=shade, lw=3, alpha=0.55, label=f"{n:,} random halves")
        left.plot(places, found["target"][0], "o", ms=3, color=TARGET, label="target")
        left.plot(places, found["topk"][0], "x", ms=4, mew=0.9, color=ACTIVE, label="its component alone")
        left.set_title(f"half of the components off, {title}", fontsize=10)
        left.set(xlim=(-1.5, len(places) + 0.5), ylabel="MLP adds")
        left.legend(frameon=False, fontsize=8, ncols=3, loc="upper right")
        right.hist(own[name].numpy(), bins=bins, orientation="horizontal", color=shade, alpha=0.7)
        right.axhline(own["target"].item(), color=TARGET, lw=1.5, label="target")
        right.axhline(own["topk"].item(), color=ACTIVE, ls="--", lw=1.5, label="alone")
        right.set_title(f"output {feature}", fontsize=10)
    axes[0, 1].legend(frameon=False, fontsize=8)
    axes[1, 0].set_xlabel(f"output (feature {feature} is 1)")
    axes[1, 1].set_xlabel("halves")
    axes[0, 0].set_ylim(low - 0.05, high + 0.25 * (high - low))
    for ax in axes.flat:
        sns.despine(ax=ax)
    others = torch.arange(len(places)) != feature
    moved = {name: (found[name] - found["target"])[:, others].std().item() for name in kinds}
    spans = {name: f"from {own[name].min():.2f} to {own[name].max():.2f}" for name in kinds}
    alt = (
        f"With feature {feature} at 1, the target's MLPs add {own['target'].item():.2f} to output {feature}, its "
        f"component alone {own['topk'].item():.2f}. With half of all components off and its component kept, "
        f"{own['scrubbed'].mean():.2f} on average over {n:,} draws, {spans['scrubbed']}; with its component ablated "
        f"too, {own['anti_scrubbed'].mean():.2f}, {spans['anti_scrubbed']}. The other outputs differ from the target's "
        f"by {moved['scrubbed']:.3f} and {moved['anti_scrubbed']:.3f} (standard deviations)."
    )
    return fig, alt


def scrub_histograms(
    scrubbed: "Scrubbed", published: dict[str, tuple[float, float | None]] | None = None
) -> tuple[Figure, str]:
    """Errors with half of all components ablated, over the training distribution (APD figures 8 and 25).

    `published` means, as in a preset, are marked above ours. Inputs with nothing on have no error: they count in the
    means, but are left out of the picture.
    """
    looks = {
        "topk": ("top-k", ACTIVE, "-"),
        "scrubbed": ("scrubbed: own components kept", KEPT, "--"),
        "anti_scrubbed": ("anti-scrubbed: own ablated too", ABLATED, "-."),
    }
    fig, axes = figure(9, 3.9)
    ax, bins = axes[0, 0], np.geomspace(LOWEST, 0.03, 80)
    told = []
    for name, (label, shade, line) in looks.items():
        errors = getattr(scrubbed, name)
        on = errors[scrubbed.monosemantic > 0].double().clamp(bins[0], bins[-1])
        counts, _ = np.histogram(on.numpy(), bins=bins)
        ax.stairs(counts, bins, color=shade, ls=line, lw=1.8, label=f"{label}, mean {errors.mean():.1e}")
        ax.stairs(counts, bins, color=shade, fill=True, alpha=0.15)
        ax.axvline(errors.mean().item(), color=shade, ls=line, lw=1)
        told.append(f"{label.split(':')[0]} {errors.mean():.1e}")
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
        f"with nothing on, are left out of the picture but count in the means. Means: {', '.join(told)}, monosemantic "
        f"{mono:.1e}."
    )
    return fig, alt


class FeatureErrors:
    """A panel with one point for each feature, sorted by the target's own error (one of APD figures 16, 17, 21, 22)."""

    def __init__(self, ax: Axes, n_features: int, label: str, top: float):
        places = np.arange(n_features)
        self.target = ax.plot(places, np.zeros(n_features), color=TARGET, lw=2, label="target")[0]
        self.mine = ax.plot(places, np.zeros(n_features), "o", ms=4, color=ACTIVE, label=label)[0]
        self.drops = ax.vlines(places, 0, 1, color=ACTIVE, lw=1)
        ax.set(xlabel="features, by the target's error", xlim=(-2, n_features + 1), ylim=(0, 1e3 * top))
        ax.set_ylabel("MSE against the labels (10⁻³)")
        ax.legend(frameon=False, fontsize=8, loc="upper left")
        sns.despine(ax=ax)

    def move(self, target: Tensor, mine: Tensor) -> None:
        """Show these errors, (n_features,) each."""
        order = target.argsort()
        target, mine = (1e3 * target[order]).tolist(), (1e3 * mine[order]).tolist()
        self.target.set_ydata(target)
        self.mine.set_ydata(mine)
        self.drops.set_segments([[(i, low), (i, high)] for i, (low, high) in enumerate(zip(target, mine, strict=True))])


def highest_error(*found: "SingleFeature") -> float:
    """Where the axis of `FeatureErrors` should end to show all of these."""
    return 1.25 * max(values.nan_to_num().max().item() for each in found for values in each[-3:])


def feature_errors(found: "SingleFeature", top_k: float) -> tuple[Figure, str]:
    """One feature on: one component against the batch top-k (APD figures 16 and 17, 21 and 22)."""
    fig, axes = figure(9, 4.8, 2, 1, sharex=True)
    columns = {
        "one component": found.top_1_label_error,
        f"batch top-k = {top_k:g}": found.batch_top_k_label_error,
    }
    for ax, (label, errors) in zip(axes[:, 0], columns.items(), strict=True):
        FeatureErrors(ax, len(errors), label, highest_error(found)).move(found.label_error, errors)
    axes[0, 0].set_xlabel("")
    worst = [(errors / found.label_error).nan_to_num().max() for errors in columns.values()]
    above, below = (f"{errors.nanmean():.2e} with {label}" for label, errors in columns.items())
    alt = (
        f"Error against the labels for each of {len(found.top_1)} features, on inputs with that feature alone on, "
        f"sorted by the target's own error, which is {found.label_error.nanmean():.2e} on average. Above, {above}; "
        f"below, {below}. At worst they are {worst[0]:.1f} and {worst[1]:.1f} times the target's."
    )
    return fig, alt


def active_components(ax: Axes, found: "SingleFeature", label: str | None = None, look: str = "o", c: int = 0) -> Axes:
    """Components that the batch top-k gives a feature, against the error with only one (APD figures 18 and 23)."""
    ax.plot(1e4 * found.top_1, found.n_active, look, ms=4.5, mfc="none", color=color(c), label=label)
    ax.set(xlabel="MSE against the target, with one component (10⁻⁴)", ylabel="active components, mean")
    sns.despine(ax=ax)
    return ax


class SharedComponents:
    """A panel with one point for each component: its attribution on two features, those it serves most.

    A component for one feature lies low; one that serves two alike lies on the diagonal. Those that are first for two
    features or more are squares.
    """

    def __init__(self, ax: Axes, top: float):
        ax.plot([0, top], [0, top], ":", color="0.5", lw=1)
        ax.text(0.62 * top, 0.66 * top, "alike", fontsize=8, color="0.35", rotation=36)
        self.all = ax.plot([], [], "o", ms=4, mfc="none", color=TARGET, label="component")[0]
        self.two = ax.plot([], [], "s", ms=6, color=ACTIVE, label="first for two")[0]
        ax.set(xlim=(0, top), ylim=(0, top), xlabel="attribution: feature served most", ylabel="feature served next")
        ax.legend(frameon=False, fontsize=8, loc="upper left")
        sns.despine(ax=ax)

    def move(self, A: Float[Tensor, "n_features C"]) -> None:
        """Show these attributions, one feature on at a time."""
        first, second = A.topk(2, dim=0).values  # (C,) each
        counts = torch.bincount(A.argmax(dim=1), minlength=A.shape[1])
        self.all.set_data(first[counts < 2], second[counts < 2])
        self.two.set_data(first[counts > 1], second[counts > 1])
