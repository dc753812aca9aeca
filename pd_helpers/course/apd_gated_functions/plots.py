"""The functions of the hand-written network, what components compute of them (APD figure 12), and training."""

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pd_helpers.plots.page import color, figure
from pd_helpers.runs.calls import checked

if TYPE_CHECKING:
    import pandas


@checked()
def gated_outputs(ax: Axes, x: Tensor, targets: Tensor, outputs: Tensor) -> Axes:
    """The target's functions (n_functions, points) as broad lines, and the outputs of components as dashed lines."""
    for i, (target, output) in enumerate(zip(targets, outputs, strict=True)):
        ax.plot(x, target, color=color(i), lw=5, alpha=0.3, solid_capstyle="butt")
        ax.plot(x, output, color=color(i), lw=1.8, ls="--")
        ax.text(float(x[-1]) * 1.02, float(target[-1]), str(i), color=color(i), va="center", fontsize=10)
    ax.set(xlabel="$x$", ylabel="output $y$")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


@checked()
def successes(errors: Tensor, sparse: Tensor, limit: float) -> tuple[Figure, str]:
    """Relative errors (seeds, n_functions), and the seeds counted by how many functions have one of at most `limit`.

    `errors` are those of one component alone, which are shown (left) and counted (right); `sparse` are those of the
    active components together, which are counted beside them. Returns the figure and its alt text.
    """
    n_seeds, n_functions = errors.shape
    fig, axes = figure(9.2, 3.4, 1, 2, width_ratios=[2, 1])
    left, right = axes[0]
    for i, marker in zip(range(n_functions), "os^D", strict=True):
        left.plot(range(n_seeds), errors[:, i].clamp(1e-4, 3), marker, color=color(i), ms=6, label=f"$F_{i}$")
    left.axhline(limit, color="0.3", ls="--", lw=1)
    left.set(
        yscale="log", xlabel="seed", ylabel="relative error, component alone", xticks=range(n_seeds), ylim=(5e-5, 5)
    )
    left.legend(frameon=False, fontsize=8, ncols=4, loc="lower left")
    alone, together = ((e <= limit).sum(dim=1).bincount(minlength=n_functions + 1).tolist() for e in (errors, sparse))
    for shift, counts, i, label in ((-0.2, together, 0, "active components"), (0.2, alone, 2, "one component")):
        right.bar([k + shift for k in range(n_functions + 1)], counts, width=0.38, color=color(i), label=label)
        for k, n in enumerate(counts):
            right.text(k + shift, n + 0.15, str(n), ha="center", fontsize=9)
    right.set(xlabel=f"functions computed, of {n_functions}", ylabel="seeds", xticks=range(n_functions + 1))
    right.set_ylim(0, 1.35 * max(*alone, *together))
    right.legend(frameon=False, fontsize=8)
    for ax in axes[0]:
        ax.spines[["top", "right"]].set_visible(False)
    listed = [", ".join(f"{n} with {k}" for k, n in enumerate(counts)) for counts in (alone, together)]
    alt = (
        f"Left: relative error of each function with its component alone, for {n_seeds} seeds, on a log scale with the "
        f"limit of {limit:g} dashed; many points lie below, and {alone[-1]} of {n_seeds} seeds have all there. Right: "
        f"seeds by the number of functions that one component computes alone: {listed[0]}; and by the number that the "
        f"active components compute together: {listed[1]}."
    )
    return fig, alt


@checked()
def leaving(table: "pandas.DataFrame") -> tuple[Figure, str]:
    """Losses (left), and the share of activity that is asleep (right), against the step: the table of `ideas.watched`.

    Returns the figure and its alt text.
    """
    fig, axes = figure(9.2, 3.3, 1, 2)
    place = range(len(table))
    for i, (name, style) in enumerate(
        (("total", "-"), ("simplicity", "--"), ("minimality", ":"), ("faithfulness", "-."))
    ):
        axes[0, 0].plot(
            place, table[name], style, lw=2, marker="o", ms=4, color="0.1" if i == 0 else color(i), label=name
        )
    axes[0, 0].set(ylabel="loss times its coefficient", ylim=(0, 1.3 * table["total"].max()))
    axes[0, 0].legend(frameon=False, fontsize=9, ncols=2, loc="upper left")
    axes[0, 1].plot(place, table["asleep"], lw=2, marker="o", ms=4, color=color(3))
    axes[0, 1].set(ylabel="share asleep, of the awake", ylim=(0, 1))
    for ax in axes[0]:
        ax.set(xlabel="training step", xticks=place, xticklabels=table["step"])
        ax.spines[["top", "right"]].set_visible(False)
    first, last = table.iloc[0], table.iloc[-1]
    alt = (
        f"Left: the total loss goes from {first.total:.3f} at the mechanisms to {last.total:.3f} after {last.step:.0f} "
        f"steps; simplicity falls from {first.simplicity:.3f} to {last.simplicity:.3f}, and minimality rises from "
        f"{first.minimality:.3f} to {last.minimality:.3f}. Right: the share of awake neurons that the sparse network "
        f"leaves asleep rises from {first.asleep:.0%} to {last.asleep:.0%}."
    )
    return fig, alt
