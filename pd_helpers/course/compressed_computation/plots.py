"""Pictures of compressed computation with a mixing matrix: losses, and directions of M (Bhagat et al. 2026)."""

import pandas
from matplotlib.axes import Axes

from pd_helpers.analysis import subspaces
from pd_helpers.core.config import shown
from pd_helpers.course.compressed_computation import ideas as mixing
from pd_helpers.plots.page import GREY, color
from pd_helpers.runs.calls import COMMON, check_columns, checked

KINDS = {
    "none": ("none (clean labels)", "0.1", "o", "-"),
    "embedding": ("embedding, I − W_EᵀW_E", color(0), "s", "-"),
    "flipped": ("embedding, other sign", color(9), "D", "--"),
    "symmetric": ("symmetric", color(1), "^", "-"),
    "asymmetric": ("asymmetric", color(2), "v", "-."),
}
"""Kind of mixing → its label, colour, marker and line."""


@checked()
def mixing_losses(ax: Axes, table: "pandas.DataFrame", against: str) -> Axes:
    """L / p of every kind in a table of `ideas.sweep`, over its column `sigma` or `p`, and the naive loss.

    Both are figures of Bhagat et al. Over sigma, every curve starts from labels without mixing; over p, the naive MLP
    with the best offset is drawn too. The `gid` of every curve is its kind.
    """
    check_columns("table", table, ["kind", "loss", against], COMMON["DataFrame"])
    clean = table[table["kind"] == "none"]
    for kind, (label, shade, marker, dash) in KINDS.items():
        rows = table[table["kind"] == kind].sort_values(against)
        if not len(rows) or (against == "sigma" and kind == "none"):
            continue
        if against == "sigma":
            rows = pandas.concat([clean, rows])
        style = {"color": shade, "marker": marker, "ms": 5, "lw": 1.6}
        ax.plot(rows[against], rows["loss"], dash, label=label, gid=kind, **style)
    ax.axhline(1 / 12, color=GREY, ls=":", lw=1.6, label="naive, 1/12")
    ax.set(ylabel="loss per feature L/p")
    if against == "p":
        grid = [10 ** (i / 20) for i in range(-60, 1)]
        ax.plot(grid, [mixing.offset_loss(p) for p in grid], color=GREY, ls="--", lw=1.2, label="naive with offset")
        ax.set(xlabel="feature probability p", xscale="log")
    else:
        ax.set(xlabel="standard deviation σ of M's entries")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


@checked()
def direction_cosines(
    ax: Axes, directions: subspaces.Directions, kind: str, label: str, d: int = mixing.N_NEURONS
) -> Axes:
    """Cosine of what M and what the network make of each direction of M, strongest first, as Bhagat et al. draw it.

    A vertical line stands behind the first `d` directions, one for each neuron.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, but is {shown(kind)}; 'symmetric' works")
    _, shade, marker, _ = KINDS[kind]
    ax.plot(range(1, len(directions.cosine) + 1), directions.cosine, marker, color=shade, ms=3.5, label=label)
    ax.axvline(d + 0.5, color=GREY, ls=":", lw=1)
    ax.set(xlabel="direction of M, strongest first", ylabel="cosine", ylim=(-0.12, 1.05))
    ax.spines[["top", "right"]].set_visible(False)
    return ax
