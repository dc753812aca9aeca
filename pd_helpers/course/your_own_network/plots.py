"""Pictures of a classifier's decomposition, for notebook 17 and networks of your own."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pd_helpers.analysis.metrics import ALIVE
from pd_helpers.plots.page import GREY, NEGATIVE, POSITIVE, color, figure
from pd_helpers.runs.calls import check_columns, checked
from pd_helpers.runs.run import Run

if TYPE_CHECKING:
    import pandas


MARKERS = "os^Dvp"


@checked()
def read_vector(ax: Axes, v: Float[Tensor, " d"], shape: tuple[int, int] | None = None) -> Axes:
    """What a subcomponent reads: an image if the layer's input is an image of this shape, and bars otherwise."""
    if shape is None or shape[0] * shape[1] != len(v):
        return signed_bars(ax, v)
    show_vector(ax.imshow(np.zeros(shape), cmap="RdBu"), v)
    ax.set(xticks=[], yticks=[])
    return ax


@checked()
def signed_bars(ax: Axes, v: Float[Tensor, " d"]) -> Axes:
    """One bar for each entry, blue for positive and orange-red for negative ones."""
    show_vector(ax.bar(range(len(v)), np.zeros(len(v))), v)
    ax.axhline(0, color=GREY, lw=0.8)
    ax.relim()
    ax.autoscale_view()
    ax.spines[["top", "right"]].set_visible(False)
    if len(v) <= 12:
        ax.set_xticks(range(len(v)))
    return ax


@checked()
def show_vector(picture: AxesImage | BarContainer, v: Float[Tensor, " d"]) -> None:
    """Show other numbers in an image or in bars that are drawn already."""
    values = v.tolist()
    if isinstance(picture, AxesImage):
        limit = max(map(abs, values)) or 1.0
        picture.set(data=np.reshape(values, picture.get_array().shape), clim=(-limit, limit))
        return
    for bar, value in zip(picture, values, strict=True):
        bar.set(height=value, facecolor=POSITIVE if value > 0 else NEGATIVE)


@checked()
@torch.no_grad()
def factors_of(run: Run, x: Float[Tensor, "rows d_in"], use: str) -> list[tuple[Tensor, Tensor]]:
    """What each subcomponent of a use writes (d_out,) and reads (d_in,).

    Both have the sign for which it reads positive numbers on those of the inputs where it is important. This choice is
    free, because (−U_c)(−V_c) is the same matrix.
    """
    model = run.components
    layer, transposed = model.uses[use]
    U, V = model.layers[layer].U[:, :, 0], model.layers[layer].V[:, 0]
    reads = model.inner(model.target_forward(x).inputs)[use].squeeze(-1)  # (rows, C)
    signs = torch.where((run.importances(x)[use] * reads).sum(dim=0) < 0, -1.0, 1.0).unsqueeze(1)
    U, V = signs * U, signs * V
    return list(zip(V, U, strict=True)) if transposed else list(zip(U, V, strict=True))


@checked()
def reading(
    run: Run,
    x: Float[Tensor, "rows d_in"],
    labels: Int[Tensor, " rows"],
    use: str,
    chosen: Sequence[int],
    shape: tuple[int, int],
    names: tuple[str, str] = ("input", "output"),
    n_examples: int = 5,
) -> tuple[Figure, str]:
    """A row for each chosen subcomponent of a use: what it reads, what it writes, its classes, and inputs it serves.

    `shape` is the shape of an input as an image, and `names` are the names of the layer's input and output. The
    examples are, among the inputs on which the subcomponent is important, those with the largest inner activations.
    Returns the figure and its alt text.
    """
    g, factors = run.importances(x)[use], factors_of(run, x, use)
    n_classes = int(labels.max()) + 1
    widths = [1.1, 2.2, 2.2] + [0.75] * n_examples
    fig, axes = figure(9.2, 1.25 * len(chosen) + 0.5, len(chosen), 3 + n_examples, width_ratios=widths)
    clauses = []
    for row, c in zip(axes, chosen, strict=True):
        u, v = factors[c]
        read_vector(row[0], v, shape).set_ylabel(f"{c}", rotation=0, labelpad=14, fontsize=11)
        signed_bars(row[1], u)
        on = (g[:, c] > ALIVE).double()
        shares = torch.stack([on[labels == k].mean() for k in range(n_classes)])
        row[2].bar(range(n_classes), shares.tolist(), color=color(0))
        row[2].set(ylim=(0, 1.05), xticks=range(n_classes))
        row[2].spines[["top", "right"]].set_visible(False)
        inputs = run.components.target_forward(x).inputs[use]
        best = torch.where(on > 0, inputs @ v, -torch.inf).argsort(descending=True)[: int(on.sum())]
        for ax, i in zip(row[3:], best.tolist(), strict=False):
            ax.imshow(np.asarray(x[i]).reshape(shape), cmap="Greys", vmin=0)
        for ax in row[3:]:
            ax.set(xticks=[], yticks=[])
        for ax in row[:3]:
            ax.tick_params(labelsize=7)
        classes = ", ".join(
            f"{k} ({shares[k]:.0%})" for k in shares.argsort(descending=True).tolist() if shares[k] > 0.3
        )
        clauses.append(f"{c} is important for {classes or 'no class above 30%'}")
    titles = [f"reads ({names[0]})", f"writes ({names[1]})", "important for class"]
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize=9)
    axes[0, 3 + n_examples // 2].set_title("where it reads most", fontsize=9)
    summary = "Subcomponents by what they read and write, the share of each class they are important for, and inputs"
    return fig, f"{summary}: {'; '.join(clauses)}."


@checked()
def class_table(ax: Axes, values: Float[Tensor, "rows classes"], rows: Sequence[str], limit: float = 1.0) -> Axes:
    """Changes of accuracy, with a row for each intervention, a column for each class, and the number in every cell."""
    values = np.asarray(values)
    ax.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for (i, k), value in np.ndenumerate(values):
        text = "0" if abs(value) < 0.005 else f"{value:+.2f}"
        ax.text(k, i, text, ha="center", va="center", fontsize=7, color="white" if abs(value) > 0.6 * limit else "0.2")
    ax.set(xticks=range(values.shape[1]), yticks=range(len(values)), yticklabels=rows, xlabel="class")
    return ax


@checked()
def coefficient_curves(table: "pandas.DataFrame", yardsticks: Mapping[str, float]) -> Figure:
    """Accuracy, divergence, and the number of subcomponents that are alive and in use, over the importance coefficient.

    `table` is indexed by β3 and has columns `accuracy important`, `accuracy random`, `KL important`, `KL random`, and
    `alive …` and `L0 …` for every layer. `yardsticks` are drawn as horizontal lines among the divergences.
    """
    needed = [f"{what} {which}" for what in ("accuracy", "KL") for which in ("important", "random")]
    check_columns("table", table, needed, "the table of notebook 17")
    fig, axes = figure(9.2, 3.3, 1, 3)
    accuracy, divergence, counts = axes[0]
    for k, name in enumerate(["important", "random"]):
        look = {"color": color(k), "marker": MARKERS[k], "ls": ["-", "--"][k]}
        label = ["important ones only", "others at random"][k]
        accuracy.plot(table.index, table[f"accuracy {name}"], label=label, **look)
        divergence.plot(table.index, table[f"KL {name}"], label=label, **look)
    for k, (name, value) in enumerate(yardsticks.items()):
        divergence.axhline(value, color="0.4", ls=[":", "-."][k % 2], lw=1.2, label=name)
    for k, name in enumerate(column for column in table if column.startswith(("alive", "L0"))):
        filled = name.startswith("alive")
        look = {"color": color(k % 2), "marker": MARKERS[k], "ls": "-" if filled else ":"}
        counts.plot(table.index, table[name], label=name, mfc=None if filled else "white", **look)
    accuracy.set(ylabel="test accuracy", ylim=(None, 1.0))
    divergence.set(yscale="log", ylabel="KL from the network, nats")
    counts.set(yscale="log", ylabel="subcomponents")
    for ax in axes[0]:
        ax.set(xscale="log", xlabel="importance coefficient β₃")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=7.5)
    return fig


@checked()
def match_curves(ax: Axes, cosines: Mapping[str, Float[Tensor, " _"]]) -> Axes:
    """Sorted cosine similarities of matched subcomponents, with a line for each comparison."""
    for k, (name, values) in enumerate(cosines.items()):
        values = np.asarray(values)
        ax.plot(range(1, len(values) + 1), values, marker=MARKERS[k], ms=4, color=color(k), label=name)
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set(xlabel="matched pair, best first", ylabel="cosine similarity", ylim=(-0.1, 1.05))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8, loc=(0.3, 0.62))
    return ax


@checked()
def places(
    images: Float[Tensor, "n height width"],
    patches: Float[Tensor, "n height width C"],
    lines: Float[Tensor, "n height C2"],
    chosen: Sequence[int],
    names: tuple[str, str],
) -> Figure:
    """Where in an image subcomponents are important: a row of panels for each of n images.

    On the left the image, and on it the importances of the chosen subcomponents of a convolution, one panel for each,
    at the middle of their patches. On the right the importances of a layer that has a position for each line of the
    image: lines from top to bottom, and of its C2 subcomponents those that are important on one of the images, the most
    used first. `names` are the names of the two layers.
    """
    images, patches = np.asarray(images), np.asarray(patches)
    shades = LinearSegmentedColormap.from_list("importance", ["white", POSITIVE])
    counts = (lines > ALIVE).sum(dim=(0, 1))
    used = [c for c in counts.argsort(descending=True, stable=True).tolist() if counts[c]]
    widths = [1.0] * (1 + len(chosen)) + [0.21 * len(used) + 0.1]
    fig, axes = figure(9.2, 1.08 * len(images) + 0.7, len(images), 2 + len(chosen), width_ratios=widths)
    for row, image, at_patches, at_lines in zip(axes, images, patches, lines, strict=True):
        for ax in row[:-1]:
            ax.imshow(image, cmap="Greys", vmin=0, vmax=1.5)
            ax.set(xticks=[], yticks=[])
        for ax, c in zip(row[1:-1], chosen, strict=True):
            color_of_g = np.broadcast_to(POSITIVE, (*at_patches.shape[:2], 3))
            ax.imshow(np.dstack([color_of_g, 0.75 * at_patches[..., c]]))
        shown = row[-1].imshow(np.asarray(at_lines[:, used]), cmap=shades, vmin=0, vmax=1, aspect="auto")
        row[-1].set(xticks=[], yticks=range(len(image)))
        row[-1].tick_params(labelsize=7)
        row[-1].set_ylabel("line", fontsize=8)
    for ax, c in zip(axes[0, 1:-1], chosen, strict=True):
        ax.set_title(f"{c}", fontsize=9)
    axes[0, 0].set_title("image", fontsize=9)
    note = f"important in layer {names[0]}, by subcomponent"
    axes[-1, 1].text(0, -0.12, note, transform=axes[-1, 1].transAxes, va="top", fontsize=8).set_in_layout(False)
    axes[0, -1].set_title(f"layer {names[1]}", fontsize=9)
    axes[-1, -1].set_xticks(range(len(used)), used)
    axes[-1, -1].tick_params(axis="x", labelsize=7)
    axes[-1, -1].set_xlabel("subcomponent", fontsize=8)
    fig.colorbar(shown, ax=axes[:, -1], label="importance g", pad=0.02, aspect=30, ticks=[0, 0.5, 1])
    return fig
