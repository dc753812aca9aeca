"""Pictures of description length: co-activation, and names against ranks (APD appendix A.2)."""

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from pd_helpers.plots.page import GREY, color
from pd_helpers.runs.calls import checked


@checked()
def co_activation(ax: Axes, active: Shaped[Tensor, "inputs C"], groups: Sequence[Sequence[int]] = ()) -> Axes:
    """How often two components are active on the same input, in percent; `active` is (inputs, C).

    The diagonal shows how often each component is active. Members of a group of two or more share a coloured frame and
    a letter.
    """
    active = active.double().cpu()
    shares = (active.T @ active / len(active)).numpy()
    ax.imshow(shares, cmap="Greys", vmin=0, vmax=1.6 * max(shares.max(), 1e-9))
    for (i, j), share in np.ndenumerate(shares):
        ax.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=9)
    letters = iter("ABCDEFGH")
    names = [str(c) for c in range(len(shares))]
    for number, group in enumerate(group for group in groups if len(group) > 1):
        letter = next(letters)
        for i in group:
            names[i] = f"{i} {letter}"
            for j in group:
                frame = {"fill": False, "lw": 2.2, "edgecolor": color(number), "zorder": 3}
                ax.add_patch(Rectangle((j - 0.44, i - 0.44), 0.88, 0.88, **frame))
    ax.set(xticks=range(len(names)), yticks=range(len(names)), xticklabels=names, yticklabels=names)
    ax.set(xlabel="component", ylabel="component")
    ax.tick_params(labelsize=9, length=0)
    return ax


@checked()
def schatten_bars(ax: Axes, sigma: Shaped[Tensor, " n"], lengths: Shaped[Tensor, " n"], p: float) -> Axes:
    """The p-th powers of singular values and of lengths of factors, side by side."""
    places = np.arange(len(sigma))
    for shift, values, name, shade, hatch in (
        (-0.2, sigma, "singular values", color(0), ""),
        (0.2, lengths, "factors", color(1), "//"),
    ):
        values = np.asarray(values.detach().cpu())
        ax.bar(places + shift, values**p, 0.38, color=shade, hatch=hatch, edgecolor="white", lw=0, label=name)
        for place, value in zip(places, values, strict=True):
            ax.plot([place + shift - 0.17, place + shift + 0.17], [value, value], color=GREY, lw=1.2)
    ax.set(xlabel="number", ylabel=f"to the power {p:g} (grey: the value)", xticks=places)
    sns.despine(ax=ax)
    return ax


@checked()
def trade_off(ax: Axes, cuts: Mapping[str, tuple[float, float]], alpha: float) -> Axes:
    """Decompositions as points: active ranks per input across, bits for the names of active components up.

    A description length is up + α · across, so decompositions of equal length lie on a line of slope −α. The line of
    the shortest one at this `alpha` is drawn. Points that are too high for the axes are named at the upper edge.
    """
    least = min(names + alpha * ranks for ranks, names in cuts.values())
    top, right = 1.7 * least, 1.5 * least / alpha
    ax.plot([0, least / alpha], [least, 0], color="0.4", lw=1)
    ax.fill_between([0, least / alpha], [least, 0], color="0.93", zorder=0)
    ax.annotate("no cut is this short", (0.05 * least / alpha, 0.2 * least), fontsize=9, style="italic", color="0.35")
    for i, (name, (ranks, names)) in enumerate(cuts.items()):
        if names > top:
            ax.annotate(f"{name}: far above ↗", (0.97 * right, 0.97 * top), fontsize=9, ha="right", va="top")
            continue
        ax.plot(ranks, names, "os^Dv"[i % 5], color=color(i), ms=8, zorder=3, clip_on=False)
        touched = names + alpha * ranks < 1.001 * least  # named inside the corner, where no other cut can be
        place = {"ha": "right" if touched else "left", "va": "top" if i % 2 or (touched and names > 0) else "bottom"}
        shift = (-6 if touched else 7, -3 if place["va"] == "top" else 3)
        ax.annotate(name, (ranks, names), xytext=shift, textcoords="offset points", fontsize=9, **place)
    ax.set(xlim=(0, right), ylim=(0, top))
    ax.set(xlabel="active ranks per input (← simple)", ylabel="bits for names (minimal ↓)")
    sns.despine(ax=ax)
    return ax
