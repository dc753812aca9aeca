"""Pictures of attributions: three estimates of one effect, and what ablation does to the output."""

from collections.abc import Mapping

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from torch import Tensor

from pd_helpers.plots.page import GREY, color

LOOKS = {
    "gradient": {"color": color(1), "ls": "--", "hatch": "//"},
    "integrated": {"color": color(2), "ls": "-.", "hatch": ".."},
    "ablation": {"color": color(0), "ls": "-", "hatch": ""},
}
"""How each estimate of an effect looks, in colour and in line or hatch."""


def effect_bars(ax: Axes, effects: Mapping[str, Tensor]) -> dict[str, BarContainer]:
    """Effects of the same components (C,) by estimate, side by side; returns the bars by estimate."""
    drawn, width = {}, 0.8 / len(effects)
    for n, (name, values) in enumerate(effects.items()):
        look = LOOKS[name]
        places = np.arange(len(values)) + (n - (len(effects) - 1) / 2) * width
        fill = {"color": look["color"], "hatch": look["hatch"], "edgecolor": "white", "lw": 0}
        drawn[name] = ax.bar(places, values, width, label=name, **fill)
    ax.axhline(0, color="0.2", lw=0.8)
    ax.set(xlabel="component", ylabel="effect on the output", xticks=range(len(values)))
    sns.despine(ax=ax)
    return drawn


def estimates(ax: Axes, full: Tensor, estimate: Tensor, groups: Tensor | None = None) -> Axes:
    """First-order attributions against the effects of real ablation, one mark for each input and component.

    Marks of `groups` 0 and 1 (such as: is the component's feature on?) are dots and crosses.
    """
    full, estimate = full.flatten().cpu(), estimate.flatten().cpu()
    groups = (full != full).int() if groups is None else groups.flatten().cpu()
    for group, (marker, shade) in enumerate((("o", color(0)), ("x", color(3)))):
        at = groups == group
        ax.plot(full[at], estimate[at], marker, color=shade, ms=3, mew=0.8, alpha=0.6, mfc="none")
    top = 1.05 * max(full.max().item(), estimate.max().item())
    ax.plot([0, top], [0, top], ":", color=GREY, lw=1.2)
    ax.set(xlabel="removing it changes the output by", ylabel="attribution (eq. 8)")
    sns.despine(ax=ax)
    return ax
