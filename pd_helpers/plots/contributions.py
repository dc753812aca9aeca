"""Neuron contributions of residual MLPs and of their components (APD figures 6 and 10, SPD figures 6 and 7)."""

import numpy as np
import seaborn as sns
import torch
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pd_helpers.analysis.neuron_contributions import Contributions
from pd_helpers.plots.page import color, figure
from pd_helpers.runs.calls import checked


@checked()
def contributions_beside(contributions: Contributions, n_features: int = 10) -> tuple[Figure, str]:
    """Neuron contributions to the first features: of the target, and of each feature's subcomponent (SPD figure 6).

    Returns the figure and its alt text.
    """
    target, components = contributions.target[:n_features], contributions.components[:n_features]
    n_layers = contributions.chosen.shape[1]
    fig, axes = figure(9.2, 5.6, 2, 1, sharex=True, sharey=True)
    neuron_contributions(axes[0, 0], target, n_layers=n_layers).set_title("target", fontsize=10)
    neuron_contributions(axes[1, 0], components, n_layers=n_layers).set_title("one subcomponent for each", fontsize=10)
    axes[0, 0].set_xlabel("")
    alt = (
        f"Contributions of the neurons to each of the first {n_features} features, as dots; above those of the target, "
        "below those of one subcomponent of each W_in. The largest difference is "
        f"{(target - components).abs().max():.3f}, where the largest contribution is {target.max():.2f}."
    )
    return fig, alt


@checked()
def contribution_scatter(ax: Axes, contributions: Contributions) -> Axes:
    """All neuron contributions, of the target and of each feature's subcomponent, with their correlation r.

    The marker shows the layer (SPD figures 7, 10 and 11).
    """
    target, components, n_layers = contributions.target, contributions.components, contributions.chosen.shape[1]
    for k, (x, y) in enumerate(zip(target.chunk(n_layers, dim=1), components.chunk(n_layers, dim=1), strict=True)):
        label = f"layer {k}" if n_layers > 1 else None
        ax.plot(x.flatten(), y.flatten(), "os^D"[k % 4], ms=3, mew=0, alpha=0.35, color=color(k), label=label)
    ends = [target.min().item(), target.max().item()]
    ax.plot(ends, ends, color="0.2", ls="--", lw=1, zorder=0)
    ax.set(xlabel="target's contribution", ylabel="subcomponent's contribution")
    ax.text(0.05, 0.92, f"r = {contributions.r:.4f}", transform=ax.transAxes)
    if n_layers > 1:
        ax.legend(frameon=False, fontsize=9, loc="lower right")
    sns.despine(ax=ax)
    return ax


@checked()
def neuron_contributions(
    ax: Axes, contributions: Shaped[Tensor, "n_features n_neurons"], *, n_layers: int = 1, threshold: float = 0.1
) -> Axes:
    """Contributions (n_features, n_neurons) of all neurons to each feature (top rows of APD figures 6 and 10).

    The marker shows the layer; contributions above `threshold` are labelled with the neuron's number.
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
        neurons, lowest = [n for n in row.argsort()[::-1] if row[n] > threshold], [np.inf, np.inf]
        for rank, n in enumerate(neurons):  # labels alternate between right and left, at least one line apart
            right = rank % 2 == 0
            y = lowest[right] = min(row[n], lowest[right] - 0.05 * values.max())
            ax.text(i + (0.12 if right else -0.12), y, str(n), fontsize=8, va="center", ha="left" if right else "right")
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.set(xlabel="feature", ylabel="contribution", xticks=range(len(values)), xlim=(-0.5, len(values) - 0.5))
    if n_layers > 1:
        ax.legend(frameon=False, fontsize=9, ncols=n_layers)
    sns.despine(ax=ax)
    return ax


@checked()
def contribution_pair(contributions: Contributions, n_features: int = 10) -> tuple[Figure, str]:
    """Neuron contributions of the target, and of each feature's predominant component (APD figures 6 and 10).

    Returns the figure and its alt text.
    """
    n_layers = contributions.chosen.shape[1]
    fig, axes = figure(9, 6, 2, 1, sharex=True, sharey=True)
    tables = (contributions.target[:n_features], contributions.components[:n_features])
    for ax, values, title in zip(axes[:, 0], tables, ("target", "predominant component"), strict=True):
        neuron_contributions(ax, values, n_layers=n_layers).set_title(title, fontsize=10)
    owners = [f"{i}\n({c})" for i, c in enumerate(contributions.chosen[:n_features, 0].tolist())]
    axes[0, 0].set_xlabel("")
    axes[1, 0].set_xlabel("feature (its component)")
    axes[1, 0].set_xticks(range(n_features), labels=owners)
    if n_layers > 1:
        axes[1, 0].get_legend().remove()
    r = torch.corrcoef(torch.stack([values.flatten() for values in tables]))[0, 1]
    counts = [f"{(values > 0.1).sum(dim=1).float().mean():.1f}" for values in tables]
    alt = (
        f"Contributions of {contributions.target.shape[1]} neurons to each of the first {n_features} features, above "
        f"in the target and below in the component that contributes most. On average {counts[0]} neurons of a feature "
        f"are above 0.1 in the target and {counts[1]} in the component; the largest values are {tables[0].max():.2f} "
        f"and {tables[1].max():.2f}. The correlation of the two pictures is {r:.2f}."
    )
    return fig, alt
