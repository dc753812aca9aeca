"""Pictures of attention: patterns, arrows, importances by position, pairs of subcomponents, heads, and attacks."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from pd_helpers.course.kit.methods import METHODS, method_of
from pd_helpers.plots.page import color, figure
from pd_helpers.runs.calls import check_columns, checked

if TYPE_CHECKING:
    import pandas

FAINT = 0.08
"""Attention below this is not drawn as an arrow."""


@checked()
def arrows(patterns: Sequence[Float[Tensor, "length length"]], text: str) -> tuple[Figure, str]:
    """Who attends to whom: a row of tokens for each layer, joined to those of the layer before by attention.

    `patterns` are the layers' attention patterns of one sequence. Returns the figure and its alt text.
    """
    n = len(text)
    fig, axes = figure(9.2, 3.2)
    ax, sentences = axes[0, 0], []
    for layer, pattern in enumerate(patterns):
        weights = pattern.cpu().numpy()
        queries = range(n) if layer < len(patterns) - 1 else [n - 1]  # only the last position answers
        for t in queries:
            for s in range(t + 1):
                if weights[t, s] > FAINT:
                    ax.plot(
                        [s, t], [layer + 0.17, layer + 0.83], color=color(layer), lw=2.2, alpha=float(weights[t, s])
                    )
        t = n - 1
        s = int(weights[t].argmax())
        sentences.append(
            f"layer {layer} from the last position most to position {s} ('{text[s]}', {weights[t, s]:.2f})"
        )
    for level in range(len(patterns) + 1):
        for t, character in enumerate(text):
            ax.text(t, level, character, ha="center", va="center", family="monospace", fontsize=11)
    ax.set(xlim=(-0.7, n - 0.3), ylim=(-0.3, len(patterns) + 0.3), xlabel="position")
    ax.set_yticks(range(len(patterns) + 1), ["tokens", *(f"after layer {i}" for i in range(len(patterns)))])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return fig, (
        f"Attention as lines from the tokens upward, the darker the more, where it is above {FAINT:g}; vertical lines "
        "are attention to oneself. Of the last layer only the last position is shown. "
        f"The sequence is {text}. Attention goes in {'; in '.join(sentences)}."
    )


@checked()
def importance_maps(
    importances: Mapping[str, Float[Tensor, "length C"]], alive: Mapping[str, Sequence[int]]
) -> tuple[Figure, str]:
    """Importances at every position of one sequence, a panel for each matrix, a row for each alive subcomponent.

    `alive` maps each matrix to the numbers of the subcomponents that are drawn. Returns the figure and its alt text.
    """
    uses = list(importances)
    columns = 4
    rows = -(-len(uses) // columns)
    fig, axes = figure(9.4, 2.3 * rows, rows, columns, sharex=True)
    sentences = []
    for ax, use in zip(axes.flat, uses, strict=False):
        g = importances[use][:, list(alive[use])].detach().cpu().numpy().clip(0, 1)
        if g.shape[1]:
            image = ax.imshow(g.T, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        ax.set_title(f"{short(use)} ({g.shape[1]} pieces)", fontsize=10)
        every = 1 if g.shape[1] <= 12 else 3
        ax.set_yticks(range(0, g.shape[1], every), map(str, alive[use][::every]), fontsize=7)
        sentences.append(f"{short(use)} {(g > 0.1).sum(axis=1).mean():.1f}")
    for ax in axes[-1]:
        ax.set_xlabel("position")
    for ax in axes[:, 0]:
        ax.set_ylabel("number of the piece")
    fig.colorbar(image, ax=axes, label="importance g", shrink=0.7, pad=0.01)
    return fig, (
        "Importance of the pieces that are important somewhere in a sequence (rows, by number), at each of its "
        f"positions (columns). Pieces above 0.1 at a position, on average: {', '.join(sentences)}."
    )


def short(use: str) -> str:
    """A matrix's name for a title: its layer and its letter."""
    _, layer, letter = use.split(".")
    return f"layer {layer}, {letter}"


@checked()
def by_offset(
    scores: Float[Tensor, "offsets C_q C_k"], carriers: Collection[tuple[int, int]], named: int = 4
) -> tuple[Figure, str]:
    """What pairs add to a query's scores against the offset back to the key, each curve less its mean.

    Thin lines are single pairs, blue for those in `carriers` and grey for others. Thick lines are key pieces, each
    summed over all query pieces, and the strongest have names; the dashed line is the sum of all pairs. Returns the
    figure and its alt text.
    """
    scores = (scores - scores.mean(dim=0)).detach().cpu()
    fig, axes = figure(6.6, 3.9)
    ax, offsets = axes[0, 0], range(len(scores))
    strongest = scores.abs().amax(dim=0)
    for label, of_carriers in (("single pairs that carry it", True), ("other pairs", False)):
        style = {"color": color(0) if of_carriers else "0.75", "lw": 0.8}
        ax.plot([], [], label=label, **style)
        for q, k in (strongest > 0.01 * strongest.max()).nonzero().tolist():
            if ((q, k) in carriers) == of_carriers:
                ax.plot(offsets, scores[:, q, k].tolist(), alpha=0.6, **style)
    keys, total = scores.sum(dim=1), scores.sum(dim=(1, 2))  # (offsets, C_k), (offsets,)
    order = keys[1].argsort(descending=True)[:named].tolist()
    for i, k in enumerate(order):
        ax.plot(
            offsets,
            keys[:, k].tolist(),
            "osD^"[i % 4] + "-",
            ms=4,
            lw=1.8,
            color=color(i + 1),
            label=f"key piece {k}, all queries",
        )
    ax.plot(offsets, total.tolist(), "k--", lw=1.4, label="all pairs")
    ax.set(xlabel="offset from the query back to the key", ylabel="mean score, less its mean over offsets")
    ax.legend(frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    of_carriers = [float(scores[1, q, k]) for q, k in carriers]
    return fig, (
        "What pairs of pieces add to the scores against the offset from query to key. The sum over all pairs is "
        f"largest at offset {int(total.argmax())}, {float(total.max()):.1f} above its mean. At offset 1 the "
        f"{len(carriers)} pairs that carry the mechanism make {sum(of_carriers):.1f} of {float(total[1]):.1f}, and the "
        f"strongest of them {max(of_carriers):.2f}; key piece {order[0]} makes {float(keys[1, order[0]]):.1f} with all "
        "query pieces together."
    )


@checked()
def pair_strengths(contrast: Float[Tensor, "C_q C_k"], carriers: Collection[tuple[int, int]]) -> tuple[Figure, str]:
    """The contrast that each pair makes, in order of size: all in `carriers`, up to 20, in blue, and the next in grey.

    Returns the figure and its alt text.
    """
    values = contrast.detach().cpu()
    order = values.flatten().argsort(descending=True)[: min(len(carriers), 20) + 4]
    pairs = [divmod(int(i), values.shape[1]) for i in order]
    heights = [float(values[pair]) for pair in pairs]
    fig, axes = figure(9.0, 3.2)
    ax = axes[0, 0]
    ax.bar(range(len(pairs)), heights, color=[color(0) if pair in carriers else "0.75" for pair in pairs])
    ax.set_xticks(range(len(pairs)), [f"q {q}\nk {k}" for q, k in pairs], fontsize=8)
    ax.set(ylabel="contrast at the marker's successor")
    ax.spines[["top", "right"]].set_visible(False)
    total = float(values.sum())
    return fig, (
        f"The {len(pairs)} pairs with the largest contrast between the marker's successor and all other keys. Together "
        f"all pairs make {total:.1f}; the {len(carriers)} that carry it (blue) make "
        f"{sum(float(values[pair]) for pair in carriers):.1f}, the largest {heights[0]:.1f}."
    )


@checked()
def heads(shares: Mapping[str, Float[Tensor, " pieces"]]) -> tuple[Figure, str]:
    """Share of each alive piece in the first of two heads, a column for each matrix.

    Returns the figure and its alt text.
    """
    fig, axes = figure(7.2, 3.2)
    ax, sentences = axes[0, 0], []
    for i, (use, values) in enumerate(shares.items()):
        spread = torch.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else torch.zeros(len(values))
        ax.plot((i + spread).tolist(), values.tolist(), "o", ms=5, alpha=0.7, color=color(i // 4))
        both = ((values > 0.1) & (values < 0.9)).sum()
        sentences.append(f"{short(use)} {int(both)} of {len(values)}")
    ax.axhspan(0.1, 0.9, color="0.93", zorder=0)
    ax.text(len(shares) - 0.45, 0.5, "in both heads", rotation=90, va="center", fontsize=9, color="0.35")
    ax.set_xticks(range(len(shares)), [short(use).replace("layer ", "") for use in shares])
    ax.set(ylim=(-0.05, 1.05), ylabel="share in head 0", xlabel="layer, matrix")
    ax.spines[["top", "right"]].set_visible(False)
    return fig, (
        "Share of each alive piece's squared length that lies in head 0 of two (of what it reads for o, of what it "
        "writes for the others); at 0 or 1 a piece belongs to one head, in the grey band it lies in both. Pieces in "
        f"the band: {', '.join(sentences)}."
    )


@checked()
def ladders(table: "pandas.DataFrame") -> tuple[Figure, str]:
    """Divergence and accuracy under ever longer shared attacks, a line for each run: the table of `ideas.ladders`.

    Returns the figure and its alt text.
    """
    needed = ("run", "scope", "steps", "attacked", "accuracy")
    check_columns("table", table, needed, "pdh.shipped_sweep('vpd/induction', 'ladders')")
    rungs = sorted(table["steps"].unique())
    place = {n: i for i, n in enumerate(rungs)}
    fig, axes = figure(9.0, 3.4, 1, 2)
    shared, ends = table[table["scope"] == "shared"], {}
    for name, rows in shared.groupby("run", sort=False):
        method = method_of(name)
        i, marker, label = METHODS[method]
        steps = rows["steps"].map(place)
        first = method not in ends
        ends.setdefault(method, []).append(rows["accuracy"].iloc[-1])
        for ax, column in zip(axes[0], ("attacked", "accuracy"), strict=True):
            ax.plot(steps, rows[column], marker, ls="-", ms=5, lw=1.5, color=color(i), label=label if first else None)
    for ax, label in zip(axes[0], ("divergence from the target (nats)", "share of right answers"), strict=True):
        ax.set_xticks(range(len(rungs)), [str(n) if n else "random" for n in rungs])
        ax.set(xlabel="steps of the shared attack", ylabel=label)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_yscale("log")
    axes[0, 1].set_ylim(-0.03, 1.05)
    axes[0, 0].legend(frameon=False)
    sentences = [f"{METHODS[method][2]} {min(values):.3f} to {max(values):.3f}" for method, values in ends.items()]
    return fig, (
        f"Divergence (left) and accuracy (right) under shared attacks of 0 to {rungs[-1]} steps, a line for each run. "
        f"Accuracy after {rungs[-1]} steps: {', '.join(sentences)}."
    )


@checked()
def swaps(table: "pandas.DataFrame") -> tuple[Figure, str]:
    """Accuracy on all other answers against that on the two that were swapped, a dot for each pair: `ideas.swaps`.

    Returns the figure and its alt text.
    """
    check_columns("table", table, ("swapped", "others"), "ideas.swaps(run, x)")
    fig, axes = figure(4.8, 3.8)
    ax = axes[0, 0]
    ax.plot(table["swapped"], table["others"], ".", ms=4, alpha=0.35, color=color(0))
    worst = table[["swapped", "others"]].min(axis=1)
    best = table.loc[worst.idxmax()]
    ax.plot(best["swapped"], best["others"], "o", ms=12, mfc="none", mew=2, color=color(3))
    ax.axhline(0.9, color="0.8", lw=1, zorder=0)
    ax.axvline(0.9, color="0.8", lw=1, zorder=0)
    ax.set(xlim=(min(0.3, table["swapped"].min()) - 0.03, 1.03), ylim=(min(0.6, table["others"].min()) - 0.03, 1.03))
    ax.set(xlabel="accuracy on the two swapped answers", ylabel="accuracy on all others")
    ax.spines[["top", "right"]].set_visible(False)
    both = (worst >= 0.9).mean()
    return fig, (
        f"Every pair of answers swapped, {len(table)} dots. For {100 * both:.0f}% of the pairs both accuracies are at "
        f"least 0.9; the best pair (circle) has {best['swapped']:.2f} and {best['others']:.2f}, and in the median pair "
        f"the worse of the two is {worst.median():.2f}."
    )


@checked()
def learning(accuracies: Mapping[int, float]) -> tuple[Figure, str]:
    """Share of right answers during training, from step → accuracy. Returns the figure and its alt text."""
    fig, axes = figure(5.6, 2.9)
    ax = axes[0, 0]
    steps, values = list(accuracies), list(accuracies.values())
    ax.plot(steps, values, "o-", ms=4, color=color(0))
    ax.set(xlabel="training step", ylabel="share of right answers", ylim=(-0.03, 1.03))
    ax.spines[["top", "right"]].set_visible(False)
    begun = next((step for step, value in accuracies.items() if value > 0.5), None)
    crossed = f"It passes one half at step {begun}" if begun is not None else "It never passes one half"
    return fig, f"Share of right answers on fresh sequences during training. {crossed} and ends at {values[-1]:.3f}."
