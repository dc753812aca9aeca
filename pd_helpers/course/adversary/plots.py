"""Pictures of attacks: ladders, robustness against sparsity, corners, circuits in groups, and two sigmoids compared."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pd_helpers.core.config import shown
from pd_helpers.course.kit.methods import METHODS, method_of
from pd_helpers.plots.page import GREY, color, figure
from pd_helpers.runs.calls import check_columns, checked

if TYPE_CHECKING:
    import pandas

SCOPES = {"shared": "-", "per input": ":"}
"""Scope of an attack → line style."""


def target_of(name: str) -> str:
    """The target of a run, by the name of its preset."""
    return name.split("/")[1].split(":")[0]


@checked()
def ladders(table: "pandas.DataFrame") -> tuple[Figure, str]:
    """Errors that attacks reach against their number of steps, a panel for each target: the table of `ideas.ladders`.

    Returns the figure and its alt text.
    """
    check_columns("table", table, ("run", "scope", "steps", "attacked"), "pdh.shipped_sweep('vpd/tms_5-2', 'ladders')")
    targets = list(dict.fromkeys(map(target_of, table["run"])))
    rungs = sorted(table["steps"].unique())
    place = {n: i for i, n in enumerate(rungs)}
    columns = min(2, len(targets))
    fig, axes = figure(4.7 * columns, 3.1 * -(-len(targets) // columns), -(-len(targets) // columns), columns)
    sentences = []
    for ax, target in zip(axes.flat, targets, strict=False):
        of_target = table[[target_of(name) == target for name in table["run"]]]
        ends = []
        for (name, scope), rows in of_target.groupby(["run", "scope"], sort=False):
            i, marker, label = METHODS[method_of(name)]
            steps = rows["steps"].map(place)
            ax.plot(steps, rows["attacked"], SCOPES[scope], marker=marker, ms=5, lw=1.8, color=color(i))
            if scope == "shared":
                ends.append(f"{label} {rows['attacked'].iloc[0]:.1e} to {rows['attacked'].iloc[-1]:.1e}")
        ax.set(xlabel="steps of the attack", yscale="log", xticks=range(len(rungs)), xticklabels=map(str, rungs))
        ax.tick_params(axis="x", labelsize=8)
        ax.set_title(named(target), fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
        sentences.append(f"{named(target)}, shared: {', '.join(ends)}")
    for ax in axes[:, 0]:
        ax.set_ylabel("mean squared error")
    for ax in axes.flat[len(targets) :]:
        ax.remove()
    for i, marker, label in METHODS.values():
        axes[0, 0].plot([], [], marker=marker, color=color(i), label=label)
    for scope, style in SCOPES.items():
        axes[0, 0].plot([], [], style, color="0.3", label=scope)
    axes[0, 0].legend(frameon=False, fontsize=8, ncols=2, loc="best")
    return fig, f"Errors under attack against the number of its steps. {'. '.join(sentences)}."


def named(target: str) -> str:
    """A target's name for a title."""
    sizes, _, identity = target.removeprefix("tms_").partition("_")
    kind = "TMS" if target.startswith("tms") else "residual MLP"
    sizes = sizes if kind == "TMS" else f"{target[-1]} layer{'s' if target[-1] != '1' else ''}"
    return f"{kind} {sizes}{' + identity' if identity == 'id' else ''}"


@checked()
def sparsity(table: "pandas.DataFrame") -> tuple[Figure, str]:
    """Error under attack against L0, a point for each run of either method: the table of `ideas.sparsity`.

    Returns the figure and its alt text.
    """
    check_columns("table", table, ("name", "l0", "attacked", "random"), "pdh.shipped_sweep('vpd/tms_5-2', 'sparsity')")
    fig, axes = figure(9.0, 3.5, 1, 2)
    sentences = []
    for ax, column, title in (
        (axes[0, 0], "random", "random masks"),
        (axes[0, 1], "attacked", "the worst masks found"),
    ):
        for name, rows in table.groupby("name", sort=False):
            i, marker, label = METHODS[method_of(name)]
            ax.plot(rows["l0"], rows[column], marker, ls="", ms=6, alpha=0.8, color=color(i), label=label)
            low, high = rows["l0"].min(), rows["l0"].max()
            sentences.append(
                f"{label} under {title}: errors {rows[column].min():.1e} to {rows[column].max():.1e} at L0 "
                f"{low:.2f} to {high:.2f}"
            )
        ax.set(xlabel="L0: pieces above 0.1 on an input, all uses", ylabel="mean squared error", yscale="log")
        ax.set_title(title, fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, fontsize=9)
    both = [ax.get_ylim() for ax in axes[0]]
    for ax in axes[0]:
        ax.set_ylim(min(low for low, _ in both), max(high for _, high in both))
    return fig, f"Error against L0, a point for each run. {'. '.join(sentences)}."


@checked()
def corners(found: Float[Tensor, " inputs"], best: Float[Tensor, " inputs"]) -> tuple[Figure, str]:
    """Error that a gradient attack finds (vertical) against that of the best corner (horizontal), a dot for each input.

    Returns the figure and its alt text.
    """
    fig, axes = figure(4.6, 3.9)
    ax = axes[0, 0]
    top = float(torch.maximum(found.max(), best.max()))
    ax.plot([0, top], [0, top], color="0.7", lw=1)
    ax.plot(best.numpy(), found.numpy(), "o", ms=4, alpha=0.5, color=color(1))
    ax.set(xlabel="error at the best corner", ylabel="error that the attack finds")
    ax.spines[["top", "right"]].set_visible(False)
    share = (found >= 0.95 * best).float().mean().item()
    return fig, (
        f"A dot for each of {len(found)} inputs: nearly all lie on the diagonal, where the gradient attack finds the "
        f"best corner. For {share:.0%} of the inputs it reaches at least 95% of the error there."
    )


@checked()
def circuits(
    table: "pandas.DataFrame", W: Float[Tensor, "d_out d_in"], importances: dict[str, Float[Tensor, "d_in C"]]
) -> tuple[Figure, str]:
    """Alive subcomponents against the frequency coefficient (left), and whose importances serve which circuit.

    `table` has columns `frequency_coeff` and `n_alive`, a row for each run; W has a column for each circuit, equal
    within a group; `importances` are those of some of these runs for each circuit alone, by title. Returns the figure
    and its alt text.
    """
    check_columns("table", table, ("frequency_coeff", "n_alive"), "pdh.shipped_sweep('vpd/pingpong', 'frequency')")
    n_circuits, n_groups = W.shape[1], len(W)
    fig, axes = figure(9.4, 3.6, 1, 1 + len(importances), width_ratios=[1.5, *[1] * len(importances)])
    ax = axes[0, 0]
    coefficients = sorted(table["frequency_coeff"].unique())
    place = {value: i for i, value in enumerate(coefficients)}
    ax.plot(table["frequency_coeff"].map(place), table["n_alive"], "o", ms=7, alpha=0.7, color=color(2))
    for n, label in ((n_groups, "groups"), (n_circuits, "circuits")):
        ax.axhline(n, color=GREY, ls="--", lw=1)
        ax.text(len(coefficients) - 0.55, n, f"{n} {label}", va="bottom", ha="right", fontsize=9, color="0.3")
    ax.set(
        xlabel="frequency coefficient β₄",
        ylabel="subcomponents alive",
        xticks=range(len(coefficients)),
        xticklabels=[f"{value:g}" for value in coefficients],
        xlim=(-0.5, len(coefficients) - 0.5),
        ylim=(0, 1.25 * n_circuits),
        yticks=range(0, n_circuits + 1, n_groups),
    )
    ax.spines[["top", "right"]].set_visible(False)
    for ax, (title, g) in zip(axes[0, 1:], importances.items(), strict=True):
        alive = g[:, (g > 0.1).any(dim=0)]
        order = (alive > 0.1).int().argmax(dim=0).argsort()
        ax.imshow(alive[:, order].numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        for group in range(1, n_groups):
            ax.axhline(group * n_circuits / n_groups - 0.5, color="0.7", lw=0.8)
        ax.set(xlabel="alive subcomponent", ylabel="circuit that is on", title=title)
        ax.title.set_fontsize(10)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    means = table.groupby("frequency_coeff")["n_alive"].mean()
    listed = ", ".join(f"{n:.1f} at {value:g}" for value, n in means.items())
    return fig, (
        f"Left: mean number of subcomponents alive at each frequency coefficient: {listed}; dashed lines mark "
        f"{n_groups} groups and {n_circuits} circuits. Right: importances of the alive subcomponents for each circuit "
        "alone, grey lines between groups: without the penalty many columns serve several circuits; with it, one each."
    )


@checked()
def sigmoids(ax: Axes, table: "pandas.DataFrame") -> str:
    """Alive subcomponents of W_out against the importance coefficient, for either sigmoid; returns the alt text.

    `table` has columns `sigmoid`, `importance_coeff` and `alive`.
    """
    check_columns("table", table, ("sigmoid", "importance_coeff", "alive"), "the table of notebook 18")
    styles = {"leaky": (1, "s", "-"), "straight_through": (2, "D", "--")}
    unknown = set(table["sigmoid"]) - set(styles)
    if unknown:
        raise ValueError(f"sigmoid must be one of {', '.join(styles)}, but is {shown(unknown.pop())}; leaky works")
    sentences = []
    for name, rows in table.groupby("sigmoid", sort=False):
        i, marker, style = styles[name]
        ax.plot(
            rows["importance_coeff"],
            rows["alive"],
            style,
            marker=marker,
            lw=2,
            color=color(i),
            label=name.replace("_", "-"),
        )
        listed = ", ".join(f"{n:.0f} at {c:g}" for c, n in zip(rows["importance_coeff"], rows["alive"], strict=True))
        sentences.append(f"{name.replace('_', '-')}: {listed}")
    ax.axhline(50, color=GREY, ls=":", lw=1)
    ax.set(xscale="log", xlabel="importance coefficient β₃", ylabel="alive subcomponents of W_out", ylim=(0, None))
    ax.legend(frameon=False, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    return f"Alive subcomponents of W_out against the coefficient. {'. '.join(sentences)}. Dotted: the rank, 50."
