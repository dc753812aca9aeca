"""A picture of what a linear parameter decomposition asks for (notebook 00)."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pd_helpers.plots.page import color
from pd_helpers.runs.calls import checked

STEPS = np.array([[1.1, 1.3], [1.5, 0.2], [0.5, 1.2], [1.3, -0.5]])
"""The components of the picture, as steps in a plane that stands for the space of all parameters."""

USED = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=bool)
"""Which components each of five inputs uses."""


@checked()
def three_demands(axes: Sequence[Axes]) -> None:
    """Faithful, minimal and simple, on three axes: a chain of components, a table of uses, a rank-one matrix."""
    faithful, minimal, simple = axes
    names = [f"$P_{c + 1}$" for c in range(len(STEPS))]

    corners = np.concatenate([np.zeros((1, 2)), STEPS.cumsum(axis=0)])
    faithful.annotate("", corners[-1], corners[0], arrowprops={"arrowstyle": "-|>", "lw": 5, "color": "0.8"})
    for c, (start, end) in enumerate(pairwise(corners)):
        faithful.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "lw": 2.2, "color": color(c)})
        aside = 11 * np.array([start[1] - end[1], end[0] - start[0]]) / np.linalg.norm(end - start)  # to the left of it
        place = {"textcoords": "offset points", "ha": "center", "va": "center"}
        faithful.annotate(names[c], (start + end) / 2, xytext=tuple(aside), fontsize=11, **place)
    faithful.annotate("$W$", corners[-1] / 2, xytext=(8, -14), textcoords="offset points", fontsize=11)
    faithful.set(xlim=(-0.3, 4.8), ylim=(-0.4, 3.2), aspect="equal", title="faithful: the sum is $W$")
    faithful.set_axis_off()

    for (x, c), used in np.ndenumerate(USED):
        face = color(c) if used else "white"
        minimal.add_patch(Rectangle((c - 0.4, x - 0.4), 0.8, 0.8, facecolor=face, edgecolor="0.6"))
        if used:
            minimal.annotate("on", (c, x), ha="center", va="center", color="white", fontsize=9, weight="bold")
    minimal.set(xlim=(-0.6, 3.6), ylim=(4.6, -0.6), aspect="equal", title="minimal: few per input")
    minimal.set_xticks(range(4), names)
    minimal.set_yticks(range(5), [f"input {x + 1}" for x in range(5)])
    minimal.tick_params(length=0)
    sns.despine(ax=minimal, left=True, bottom=True)

    write, read = np.array([0.9, -0.4, 0.6]), np.array([0.2, 1.0, -0.7, 0.5])
    for values, left, top in ((write[:, None], 0.0, 0.0), (read[None], 2.0, -1.6), (np.outer(write, read), 2.0, 0.0)):
        height, width = values.shape
        extent = (left, left + width, top + height, top)
        simple.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, extent=extent)
        simple.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="0.4"))
    simple.annotate("a column", (0.5, 3.25), ha="center", va="top", fontsize=9)
    simple.annotate("a row", (6.2, -1.1), va="center", fontsize=9)
    simple.annotate("their product: one $P_c$", (4.0, 3.25), ha="center", va="top", fontsize=9)
    simple.set(xlim=(-0.6, 7.6), ylim=(4.1, -2.0), aspect="equal", title="simple: such as rank one")
    simple.set_axis_off()
