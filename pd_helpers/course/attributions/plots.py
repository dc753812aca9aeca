"""Pictures of attributions: estimates of the effects of components, and the effects of real ablation (notebook 06)."""

from collections.abc import Mapping

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from torch import Tensor

from pd_helpers.core.config import shown
from pd_helpers.plots.page import GREY, color
from pd_helpers.runs.calls import checked

LOOKS = {
    "gradient": {"color": color(1), "ls": "--", "hatch": "//"},
    "integrated": {"color": color(2), "ls": "-.", "hatch": ".."},
    "ablation": {"color": color(0), "ls": "-", "hatch": ""},
}
"""Estimate of an effect → its colour, line style and hatch."""


@checked()
def effect_bars(ax: Axes, effects: Mapping[str, Tensor]) -> dict[str, BarContainer]:
    """Effects of the same components, estimate → (C,), as bars side by side; returns the bars of each estimate."""
    if not effects or set(effects) - set(LOOKS):
        raise ValueError(
            f"effects must hold some of {', '.join(LOOKS)}, but holds {shown(list(effects))}; "
            f"{{{next(iter(LOOKS))!r}: torch.rand(5)}} works"
        )
    bars, width = {}, 0.8 / len(effects)
    for n, (name, values) in enumerate(effects.items()):
        look = LOOKS[name]
        places = np.arange(len(values)) + (n - (len(effects) - 1) / 2) * width
        fill = {"color": look["color"], "hatch": look["hatch"], "edgecolor": "white", "lw": 0}
        bars[name] = ax.bar(places, values, width, label=name, **fill)
    ax.axhline(0, color="0.2", lw=0.8)
    ax.set(xlabel="component", ylabel="effect on the output", xticks=range(len(values)))
    sns.despine(ax=ax)
    return bars


@checked()
def estimates(ax: Axes, full: Tensor, estimate: Tensor, groups: Tensor | None = None) -> Axes:
    """First-order attributions over the effects of real ablation, with one mark for each input and component.

    `groups` says which marks are dots (0) and which are crosses (1), for instance by whether the component's feature is
    on.
    """
    full, estimate = full.flatten().cpu(), estimate.flatten().cpu()
    groups = (full != full).int() if groups is None else groups.flatten().cpu()
    for group, (marker, shade) in enumerate((("o", color(0)), ("x", color(3)))):
        members = groups == group
        ax.plot(full[members], estimate[members], marker, color=shade, ms=3, mew=0.8, alpha=0.6, mfc="none")
    top = 1.05 * max(full.max().item(), estimate.max().item())
    ax.plot([0, top], [0, top], ":", color=GREY, lw=1.2)
    ax.set(xlabel="removing it changes the output by", ylabel="attribution (eq. 8)")
    sns.despine(ax=ax)
    return ax
