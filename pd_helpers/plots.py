"""Pictures of networks and their decompositions: Axes in, Axes out; whole figures come with their alt text.

Colours are seaborn's colour-blind palette, and everything told by colour is also told by a number or a line style.
Figures are made without pyplot's global state, so a widget or a test can draw as many as it likes.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from torch import Tensor

from pd_helpers import metrics
from pd_helpers.causal_importance import hard_sigmoid, lower_leaky, upper_leaky

if TYPE_CHECKING:
    import pandas

    from pd_helpers.gated import GatedNetwork
    from pd_helpers.residual_mlp import ResidualMLP
    from pd_helpers.runs import Run

COLORS = sns.color_palette("colorblind")
"""One colour per component, in order, starting again after ten."""
GREY = "0.45"
POSITIVE, NEGATIVE = COLORS[0], COLORS[3]
"""Blue for positive weights, orange-red for negative ones."""
DPI = 100
VIRIDIS = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.92, 256)))
"""For a hundred features: viridis without its palest end, which white paper swallows."""


def color(c: int) -> tuple[float, float, float]:
    """The colour of component or feature c."""
    return COLORS[c % len(COLORS)]


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """A figure of that many inches with a (rows, columns) array of axes, not known to pyplot."""
    fig = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, squeeze=False, **options)


def png(fig: Figure) -> bytes:
    """The figure as PNG data."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def show(fig: Figure, alt: str) -> None:
    """Display a figure with its alt text: in the output's metadata, and as a visible sentence below it.

    The visible sentence is there because JupyterLab does not read the metadata.
    """
    from IPython.display import display

    data, metadata = bundle(fig, alt)
    display(data, raw=True, metadata=metadata)
    display({"text/html": caption(alt), "text/plain": f"Figure: {alt}"}, raw=True)


def bundle(fig: Figure, alt: str) -> tuple[dict[str, str], dict[str, dict]]:
    """The figure as notebook output: data and metadata by type, the alt text in both."""
    data = {"image/png": base64.b64encode(png(fig)).decode(), "text/plain": alt}
    return data, {"image/png": {"alt": alt, "width": round(fig.get_figwidth() * DPI)}}


def caption(alt: str) -> str:
    """The alt text as a line of HTML below a figure."""
    from html import escape

    return f'<p style="font-size:90%;opacity:.8;margin-top:0"><b>Figure.</b> {escape(alt)}</p>'


def columns(
    ax: Axes,
    W: Tensor,
    *,
    limit: float = 1.45,
    labels: bool = True,
    colors: Sequence | None = None,
    style: str = "-",
    width: float = 2.0,
    threshold: float = 0.02,
    reach: float = 0.2,
) -> Axes:
    """The columns of W (2, n_features) as arrows from the origin, numbered by feature.

    Columns shorter than `threshold` are not drawn; numbers stand `reach` beyond the arrows' tips.
    """
    W = np.asarray(W.detach().cpu())
    for j, (x, y) in enumerate(W.T):
        if (length := float(np.hypot(x, y))) < threshold:
            continue
        shade = color(j) if colors is None else colors[j]
        ax.plot([0, x], [0, y], style, color=shade, lw=width, solid_capstyle="round")
        ax.plot([x], [y], "o", color=shade, ms=2.2 * width)
        if labels and length > 0.12:
            out = 1 + reach / length
            ax.text(x * out, y * out, str(j), color=shade, ha="center", va="center", fontsize=9)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    ax.tick_params(labelsize=8, length=2)
    ax.axhline(0, color="0.9", lw=0.8, zorder=0)
    ax.axvline(0, color="0.9", lw=0.8, zorder=0)
    sns.despine(ax=ax)
    return ax


def network(ax: Axes, W: Tensor, *, scale: float = 1.0) -> Axes:
    """A toy model of superposition as a drawing: W (n_hidden, n_features) from inputs to hidden, Wᵀ from there on.

    A line's width is the weight's size; solid blue lines are positive, dashed red ones negative.
    """
    W = np.asarray(W.detach().cpu())
    n_hidden, n_features = W.shape
    x_features = np.arange(n_features) - (n_features - 1) / 2
    x_hidden = (np.arange(n_hidden) - (n_hidden - 1) / 2) * 2
    for j in range(n_features):
        for i in range(n_hidden):
            w = W[i, j] / scale
            if abs(w) < 0.02:
                continue
            look = {
                "color": POSITIVE if w > 0 else NEGATIVE,
                "ls": "-" if w > 0 else (0, (3, 1.2)),
                "lw": 2.6 * abs(w),
            }
            ax.plot([x_features[j], x_hidden[i]], [0, 1], zorder=1, **look)
            ax.plot([x_hidden[i], x_features[j]], [1, 2], zorder=1, **look)
    nodes = {"s": 42, "color": "white", "edgecolor": "0.2", "zorder": 2}
    ax.scatter(x_features, np.zeros(n_features), **nodes)
    ax.scatter(x_hidden, np.ones(n_hidden), **nodes)
    ax.scatter(x_features, 2 * np.ones(n_features), **nodes)
    for j, x in enumerate(x_features):
        ax.text(x, -0.24, str(j), ha="center", va="center", fontsize=8, color=color(j))
    ax.set(xlim=(x_features[0] - 0.6, x_features[-1] + 0.6), ylim=(-0.45, 2.25))
    ax.set_axis_off()
    return ax


def matrix(ax: Axes, W: Tensor, *, limit: float | None = None, numbers: bool = True) -> Axes:
    """A small matrix as a heat map with its entries written in."""
    W = np.asarray(W.detach().cpu())
    limit = limit or float(np.abs(W).max())
    ax.imshow(W, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    if numbers:
        for (i, j), w in np.ndenumerate(W):
            ax.text(
                j,
                i,
                f"{w:.2f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if abs(w) > 0.6 * limit else "black",
            )
    ax.set(xticks=range(W.shape[1]), yticks=range(W.shape[0]))
    ax.tick_params(labelsize=8, length=0)
    return ax


def outputs(ax: Axes, output: Tensor, target: Tensor) -> Axes:
    """Outputs of a network as bars, over the target's as outlines."""
    output, target = (np.asarray(v.detach().cpu()) for v in (output, target))
    places = range(len(output))
    ax.bar(places, output, color=[color(j) for j in places], label="masked network")
    ax.bar(places, target, fill=False, edgecolor="0.2", lw=1.4, label="target")
    ax.set(xlabel="output", ylabel="value", xticks=places, ylim=(0, max(1.1, 1.1 * float(target.max()))))
    ax.legend(fontsize=8, frameon=False)
    sns.despine(ax=ax)
    return ax


def by_feature(P: Tensor, W: Tensor, threshold: float = 0.5) -> list[int]:
    """Components in the order of the target column each serves best, the rest by size; only those of some size.

    A component is kept if its largest column is at least `threshold` of the target's longest.
    """
    lengths = P.detach().norm(dim=1)  # (C, n_features)
    largest = lengths.max(dim=1)
    kept = [c for c in range(len(P)) if largest.values[c] >= threshold * W.norm(dim=0).max()]
    return sorted(kept, key=lambda c: (int(largest.indices[c]), -float(largest.values[c])))


def decomposition(run: "Run", n_shown: int = 5) -> tuple[Figure, str]:
    """A decomposed toy model with two hidden dimensions (APD figure 3, SPD figure 1).

    Top row: columns of the target's W, of the sum of components, and of the largest components. Bottom row: the
    networks with these weights. Components are ordered by the feature they serve. Returns figure and alt text.
    """
    P, W = run.first_layer
    P = P.cpu()
    order = P.norm(dim=(1, 2)).argsort(descending=True)[:n_shown].tolist()
    order.sort(key=lambda c: int(P[c].norm(dim=0).argmax()))
    panels = [("target W", W), (f"sum of {len(P)}", P.sum(dim=0)), *((f"component {c}", P[c]) for c in order)]
    fig, axes = figure(9.2, 3.6, 2, len(panels), height_ratios=[1.2, 1])
    for (title, M), top, bottom in zip(panels, axes[0], axes[1], strict=True):
        columns(top, M, limit=1.7, reach=0.38).set_title(title, fontsize=9)
        network(bottom, M)
        top.set(xticklabels=[], yticklabels=[])
    axes[0, 0].set_ylabel("columns", fontsize=9)
    scores = f"MMCS {metrics.mmcs(P, W.cpu()):.3f}, ML2R {metrics.ml2r(P, W.cpu()):.3f}"
    shapes = "; ".join(
        f"component {c} is longest in column {int(P[c].norm(dim=0).argmax())} ({float(P[c].norm(dim=0).max()):.2f})"
        for c in order
    )
    alt = (
        f"Columns in the hidden plane, and drawn as networks below: target, sum of all components, and the "
        f"{len(order)} largest components. {shapes}. {scores}."
    )
    return fig, alt


def column_sums(ax: Axes, P: Tensor, W: Tensor) -> Axes:
    """Where each target column's length went: for column j, the length of P_c[:, j] along W[:, j], stacked over c.

    Bars reach 1 where the sum is faithful; the largest part of each is the matching component.
    """
    P, W = P.detach().cpu(), W.detach().cpu()
    parts = ((P * W).sum(dim=1) / W.square().sum(dim=0)).numpy()  # (C, n_features), sums to 1 over C
    n_features = parts.shape[1]
    for j in range(n_features):
        up, down = 0.0, 0.0
        for c in np.argsort(-np.abs(parts[:, j])).tolist():
            part = parts[c, j]
            ax.bar(j, part, bottom=up if part > 0 else down, color=color(c), edgecolor="white", lw=0.6)
            if abs(part) > 0.06:
                ax.text(
                    j,
                    (up if part > 0 else down) + part / 2,
                    str(c),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white",
                )
            up, down = up + max(part, 0), down + min(part, 0)
    ax.axhline(1, color="0.2", lw=1, ls=":")
    ax.axhline(0, color="0.2", lw=0.8)
    ax.set(xlabel="column of W (feature)", ylabel="share of the column", xticks=range(n_features))
    sns.despine(ax=ax)
    return ax


def losses(ax: Axes, history: "pandas.DataFrame", names: Sequence[str] | None = None) -> Axes:
    """Unweighted losses against training step, on logarithmic axes."""
    skipped = {"step", "mmcs", "ml2r"}
    for k, name in enumerate(names or [n for n in history if n not in skipped]):
        ax.plot(history["step"], history[name], color=color(k), ls=["-", "--", "-.", ":"][k % 4], label=name)
    ax.set(xlabel="training step", ylabel="loss (unweighted)", yscale="log")
    ax.legend(fontsize=8, frameon=False)
    sns.despine(ax=ax)
    return ax


def scores(ax: Axes, history: "pandas.DataFrame") -> Axes:
    """MMCS and ML2R against training step."""
    ax.plot(history["step"], history["mmcs"], color=color(2), label="MMCS (direction)")
    ax.plot(history["step"], history["ml2r"], color=color(1), ls="--", label="ML2R (length)")
    ax.axhline(1, color="0.8", lw=0.8, zorder=0)
    ax.set(xlabel="training step", ylabel="score", ylim=(0, 1.1))
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    sns.despine(ax=ax)
    return ax


def importances(ax: Axes, g: Tensor, *, order: Sequence[int] | None = None, title: str = "") -> Axes:
    """A causal importance matrix (SPD figure 8): a row per input feature alone at 0.75, a column per subcomponent."""
    g = np.asarray(g.detach().cpu())
    g = g if order is None else g[:, list(order)]
    image = ax.imshow(g, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set(xlabel="subcomponent (permuted)", ylabel="input feature at 0.75", title=title)
    ax.figure.colorbar(image, ax=ax, label="causal importance g", shrink=0.85)
    return ax


def greedy_order(g: Tensor) -> list[int]:
    """Subcomponents permuted so that each input in turn takes its most important one still free."""
    g, taken = g.detach().cpu(), []
    for row in g:
        free = [c for c in row.argsort(descending=True).tolist() if c not in taken]
        if free:
            taken.append(free[0])
    return taken + [c for c in range(g.shape[1]) if c not in taken]


def curves(ax: Axes, x: Tensor, Y: Tensor) -> Axes:
    """One line for each column of Y (points, n_features) over x, told apart by colour and line style."""
    x, Y = (np.asarray(v.detach().cpu()) for v in (x, Y))
    styles = ["-", "--", "-.", ":", (0, (5, 1))]
    for j in range(Y.shape[1]):
        ax.plot(x, Y[:, j], color=color(j), ls=styles[j % len(styles)], lw=2, label=str(j))
    sns.despine(ax=ax)
    return ax


def lengths(ax: Axes, P: Tensor, n_marked: int = 5) -> Axes:
    """The length ‖P_c‖ of every component (C, d_out, d_in), sorted; the first few with their values."""
    values, order = (np.asarray(v.cpu()) for v in P.detach().norm(dim=(1, 2)).sort(descending=True))
    places = np.arange(len(values))
    bars = ax.bar(places[:n_marked], values[:n_marked], color=COLORS[0])
    ax.bar(places[n_marked:], values[n_marked:], color=GREY)
    ax.bar_label(bars, fmt="%.2f", fontsize=9, padding=2)
    if len(values) > n_marked:
        middle = (n_marked + len(values) - 1) / 2
        note = f"the other {len(values) - n_marked}: at most {values[n_marked]:.3f}"
        ax.text(middle, values[n_marked] + 0.06 * values[0], note, ha="center", fontsize=10)
    ax.set(xlabel="component, by number", ylabel="length ‖P‖", ylim=(0, 1.25 * values[0]), xticks=places)
    ax.set_xticklabels(order.tolist(), fontsize=8)
    sns.despine(ax=ax)
    return ax


def leaky_sigmoids() -> tuple[Figure, str]:
    """SPD's two leaky hard sigmoids, and where each lets no gradient through. Returns figure and alt text."""
    low, high = -1.2, 2.2
    gate = torch.linspace(low, high, 500)
    panels = [
        ("lower-leaky: for masks", lower_leaky, (1, high), ("slope 0.01:\nstill learns", "slope 0:\ngradient dies")),
        (
            "upper-leaky: for the importance loss",
            upper_leaky,
            (low, 0),
            ("slope 0:\ngradient dies", "slope 0.01:\nstill learns"),
        ),
    ]
    fig, axes = figure(9, 3.4, 1, 2, sharey=True)
    for ax, (title, leaky, flat, (below, above)) in zip(axes[0], panels, strict=True):
        ax.axvspan(*flat, facecolor="0.93", edgecolor="0.75", hatch="//", lw=0)
        ax.plot(gate, hard_sigmoid(gate), color=GREY, ls=":", lw=3, label="hard sigmoid")
        ax.plot(gate, leaky(gate), color=COLORS[0], lw=2, label="with a leak")
        for x, y, text in ((-0.62, 0.3, below), (0.52, 0.1, "slope 1"), (1.62, 0.62, above)):
            ax.text(x, y, text, ha="center", fontsize=10)
        ax.set(xlabel="Γ, the tiny network's output", xlim=(low, high), ylim=(-0.12, 1.2))
        ax.set_title(title, fontsize=11)
    axes[0, 0].set_ylabel("importance g")
    axes[0, 0].legend(frameon=False, fontsize=9, loc="upper left")
    alt = (
        "Two sigmoids that rise from 0 at 0 to 1 at 1. The lower-leaky one keeps a slope of 0.01 below 0 and is flat "
        "above 1; the upper-leaky one is flat below 0 and keeps a slope of 0.01 above 1. Flat parts are hatched: the "
        "gradient dies there."
    )
    return fig, alt


class Arrows:
    """Columns of a (2, n) matrix as arrows in one colour that can be moved, without drawing their axes anew."""

    def __init__(self, ax: Axes, color: object, *, width: float = 2.0, threshold: float = 0.02):
        self.threshold = threshold
        [self.shafts] = ax.plot([], [], "-", color=color, lw=width, solid_capstyle="round")
        [self.tips] = ax.plot([], [], "o", color=color, ms=2.2 * width)

    def move(self, W: Tensor) -> None:
        """Show these columns; those shorter than `threshold` are left out."""
        tips = W.detach().cpu().numpy()
        tips = tips[:, np.hypot(*tips) >= self.threshold]  # (2, n)
        origin, gap = np.zeros_like(tips), np.full_like(tips, np.nan)
        self.shafts.set_data(*np.stack([origin, tips, gap], axis=2).reshape(2, -1))
        self.tips.set_data(*tips)


def deep_network(
    ax: Axes, matrices: Sequence[Tensor], *, names: Sequence[str] = (), behind: Sequence[Tensor] = ()
) -> Axes:
    """Matrices (d_out, d_in) applied one after the other, as a drawing from the bottom up (SPD figure 4).

    A line's width is the weight's size; solid blue lines are positive, dashed red ones negative. `behind` are other
    matrices of the same shapes, drawn in pale grey; `names` are written at the left of each matrix.
    """

    def places(n: int) -> np.ndarray:
        return (np.arange(n) - (n - 1) / 2) * (1 if n == widest else (widest - 1) / max(2, n))

    sizes = [matrices[0].shape[1], *(len(W) for W in matrices)]
    widest = max(sizes)
    nodes = [places(n) for n in sizes]
    for weights, pale in ((behind, True), (matrices, False)):
        for level, W in enumerate(weights):
            for (i, j), w in np.ndenumerate(np.asarray(W.detach().cpu())):
                if abs(w) < 0.02:
                    continue
                look = {"color": POSITIVE if w > 0 else NEGATIVE, "ls": "-" if w > 0 else (0, (3, 1.2)), "zorder": 1}
                if pale:
                    look = {"color": "0.88", "zorder": 0}
                ax.plot([nodes[level][j], nodes[level + 1][i]], [level, level + 1], lw=2.6 * abs(w), **look)
    for level, x in enumerate(nodes):
        ax.scatter(x, np.full(len(x), level), s=42, color="white", edgecolor="0.2", zorder=2)
    for level, offset in ((0, -0.32), (len(matrices), 0.32)):
        for j, x in enumerate(nodes[level]):
            ax.text(x, level + offset, str(j), ha="center", va="center", fontsize=8, color=color(j))
    for level, name in enumerate(names):
        ax.text(nodes[0][0] - 0.7, level + 0.5, name, ha="center", va="center", fontsize=9)
    margin = 1.1 if names else 0.6
    ax.set(xlim=(-widest / 2 + 0.5 - margin, widest / 2 - 0.5 + 0.6), ylim=(-0.55, len(matrices) + 0.55))
    ax.set_axis_off()
    return ax


def sorted_lengths(ax: Axes, P: Tensor, n_alive: int) -> Axes:
    """The length ‖P_c‖ of every component (C, d_out, d_in) as a dot, sorted: for more components than bars can show.

    The `n_alive` longest are dots, the others crosses.
    """
    values = np.asarray(P.detach().norm(dim=(1, 2)).sort(descending=True).values.cpu())
    places = np.arange(1, len(values) + 1)
    ax.plot(places[:n_alive], values[:n_alive], "o", color=COLORS[0], ms=3.5)
    ax.plot(places[n_alive:], values[n_alive:], "x", color=GREY, ms=3)
    ax.axvline(n_alive + 0.5, color="0.6", ls=":", lw=1)
    ax.text(n_alive + 0.04 * len(values), 0.75 * values[0], f"{n_alive} alive", fontsize=10)
    if len(values) > n_alive:
        middle = n_alive + 0.04 * len(values)
        note = f"the other {len(values) - n_alive}: at most {values[n_alive]:.3f}"
        ax.text(middle, values[n_alive] + 0.06 * values[0], note, fontsize=10)
    ax.set(xlabel="subcomponents, longest first", ylabel="length ‖P‖", ylim=(-0.04 * values[0], 1.12 * values[0]))
    sns.despine(ax=ax)
    return ax


def residual_network(ax: Axes, n_layers: int = 1) -> Axes:
    """What a residual MLP consists of, as a diagram from left to right (APD figures 5 and 9)."""
    step, up = 5.0, 1.6
    end = step * n_layers + 1.5

    def box(x: float, y: float, text: str, **look) -> None:
        ax.text(x, y, text, ha="center", va="center", fontsize=11, zorder=3, bbox={"boxstyle": "round,pad=0.4", **look})

    def arrow(*points: tuple[float, float]) -> None:
        ax.plot(*zip(*points, strict=True), color="0.2", lw=1.2, zorder=1)
        ax.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "->", "color": "0.2", "lw": 1.2})

    fixed, trained = {"fc": "0.93", "ec": "0.4", "ls": "--"}, {"fc": "white", "ec": POSITIVE, "lw": 1.6}
    ax.plot([0, end], [0, 0], color="0.75", lw=6, zorder=0, solid_capstyle="butt")
    arrow((-0.9, 0), (0.0, 0))
    arrow((end, 0), (end + 0.9, 0))
    for k in range(n_layers):
        x, end_x = 1.0 + step * k, 0.5 + step * (k + 1)
        layer = "" if n_layers == 1 else f",{k}"
        arrow((x, 0), (x, up), (end_x, up), (end_x, 0.2))
        box(x + 0.7, up, rf"$W_{{\mathrm{{in}}{layer}}}$", **trained)
        box((x + end_x) / 2, up, "ReLU", fc="white", ec="0.4")
        box(end_x - 0.7, up, rf"$W_{{\mathrm{{out}}{layer}}}$", **trained)
        ax.text(end_x, 0, "+", ha="center", va="center", fontsize=13, zorder=3)
        ax.scatter([end_x], [0], s=170, color="white", edgecolor="0.2", zorder=2)
    ax.text(end / 2, -0.3, "residual stream", ha="center", va="top", fontsize=10)
    box(0, 0, "$W_E$", **fixed)
    box(end, 0, "$W_U$", **fixed)
    ax.text(-1.05, 0, "$x$", ha="right", va="center", fontsize=12)
    ax.text(end + 1.05, 0, "$y$", ha="left", va="center", fontsize=12)
    ax.set(xlim=(-1.6, end + 1.6), ylim=(-0.9, up + 0.6))
    ax.set_axis_off()
    return ax


def responses(net: "ResidualMLP", features: Sequence[int] | None = None, n_points: int = 1000) -> tuple[Figure, str]:
    """What a residual MLP answers when one feature is on (APD figures 14 and 19; all features: 15 and 20).

    Left: all outputs with feature i at 1, over the labels. Right: output i as feature i runs over [-1, 1], over the
    labels and over what the residual stream passes on by itself. Returns figure and alt text.
    """
    features = list(range(net.n_features)) if features is None else list(features)
    values = torch.linspace(-1, 1, n_points)
    with torch.no_grad():
        device, eye = net.W_E.device, torch.eye(net.n_features)
        Y = net(eye[features].to(device)).cpu()  # (shown, n_features)
        sweeps = torch.stack([net(values[:, None].to(device) * eye[i].to(device))[:, i].cpu() for i in features])
        skip = (net.W_U @ net.W_E).diag()[features].cpu()
    fig, axes = figure(9, 3.6, 1, 2, width_ratios=[1.25, 1])
    left, right = axes[0]
    one = len(features) == 1
    shades = [COLORS[0]] if one else VIRIDIS(np.linspace(0, 1, net.n_features))[features]
    label_look = {"color": COLORS[3], "zorder": 3}
    mixed = np.random.default_rng(0).permutation(Y.numel())  # so that no feature hides all others
    rows, places = np.unravel_index(mixed, Y.shape)
    left.scatter(places, Y[rows, places], s=16 if one else 4, color=np.asarray(shades)[rows], label="network")
    for k in np.random.default_rng(0).permutation(len(features)):
        right.plot(values, sweeps[k], color=shades[k], lw=2.2 if one else 0.7, label="network" if one else None)
    wanted = 2.0 * eye[features]
    if one:
        left.plot(wanted[0], "x", ms=5, mew=1.2, label="label", **label_look)
        left.set_xlabel(f"output (feature {features[0]} is 1)")
        right.set(xlabel=f"value of feature {features[0]}", ylabel=f"output {features[0]}")
        right.plot(values, skip * values, ":", color="0.35", lw=1.8, label="skip alone")
    else:
        left.plot(features, [2.0] * len(features), "x", ms=3.5, mew=0.9, label="label", **label_look)
        left.axhline(0, lw=1.2, **label_look)
        left.set_xlabel("output (one feature is 1)")
        right.set(xlabel="value of feature i", ylabel="output i")
        scale = ScalarMappable(Normalize(0, net.n_features - 1), VIRIDIS)
        fig.colorbar(scale, ax=right, label="feature i", pad=0.02)
    right.plot(values, values + values.clamp(min=0), "--", lw=1.8, label="label", **label_look)
    left.set(ylabel="value", ylim=(-0.35, 2.15))
    right.set(ylim=(-1.25, 2.15))
    for ax in (left, right):
        ax.legend(frameon=False, fontsize=9, loc="center right" if ax is left else "upper left")
        sns.despine(ax=ax)
    own = Y[torch.arange(len(features)), features]
    others = Y[wanted == 0]
    told = f"{own[0]:.2f}" if one else f"between {own.min():.2f} and {own.max():.2f}"
    who = f"feature {features[0]}" if one else "each feature in turn"
    alt = (
        f"Left: with {who} at 1, its own output is {told} where the label is 2, and the other outputs, whose labels "
        f"are 0, lie between {others.min():.2f} and {others.max():.2f}. Right: as the feature runs from -1 to 1, its "
        "output is close to the label up to 0, and from there on rises less steeply than the label."
    )
    return fig, alt


def neuron_contributions(ax: Axes, contributions: Tensor, *, n_layers: int = 1, threshold: float = 0.1) -> Axes:
    """Contributions (n_features, n_neurons) of all neurons to each feature (top rows of APD figures 6 and 10).

    The marker tells the layer; contributions above `threshold` have the neuron's number.
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
        named, lowest = [n for n in row.argsort()[::-1] if row[n] > threshold], [np.inf, np.inf]
        for rank, n in enumerate(named):  # right and left in turn, never closer than a line
            right = rank % 2 == 0
            y = lowest[right] = min(row[n], lowest[right] - 0.05 * values.max())
            ax.text(i + (0.12 if right else -0.12), y, str(n), fontsize=8, va="center", ha="left" if right else "right")
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.set(xlabel="feature", ylabel="contribution", xticks=range(len(values)), xlim=(-0.5, len(values) - 0.5))
    if n_layers > 1:
        ax.legend(frameon=False, fontsize=9, ncols=n_layers)
    sns.despine(ax=ax)
    return ax


NO_FUNCTION = (0.35, 0.1, 0.5)
"""Dark purple, for weights that serve no function."""


def gated_network(ax: Axes, net: "GatedNetwork", weights: Mapping[str, Tensor] | None = None) -> Axes:
    """The hand-written network, from the bottom up, its weights coloured by function (APD figure 13).

    Circles are dimensions of the residual stream, or neurons with the number of the function that they serve. A line's
    width grows with the weight's size. `weights` (layer → matrix) are drawn in place of the network's own, such as
    those of a component; weights that serve no function in the network are dotted and purple.
    """
    owners, n_functions = net.owners(), len(net.coefficients)
    stream = ["$x$", *(f"$b_{i}$" for i in range(n_functions)), "$y$"]
    width = max(net.d_mlp, len(stream))
    x_stream = np.linspace(0.12, 0.88, len(stream)) * width
    x_neurons = (np.arange(net.d_mlp) + 0.5) * width / net.d_mlp
    top = 2 * len(net.mlps)
    for x in x_stream:  # the stream itself
        ax.plot([x, x], [0, top], color="0.88", lw=5, zorder=0, solid_capstyle="round")
    for level, path in enumerate(net.layers):
        own = net.get_submodule(path).weight
        W = np.asarray((own if weights is None else weights[path]).detach().cpu())
        largest = float(own.abs().max())
        ends = (x_neurons, x_stream) if level % 2 == 0 else (x_stream, x_neurons)  # of rows and columns
        for (i, j), w in np.ndenumerate(W):
            if abs(w) < 0.002 * largest:
                continue
            serves = int(owners[path][i, j])
            look = {"color": color(serves), "ls": "-"} if serves >= 0 else {"color": NO_FUNCTION, "ls": ":"}
            lw = 0.4 + 2.6 * (abs(w) / largest) ** 0.5
            ax.plot([ends[1][j], ends[0][i]], [level, level + 1], lw=lw, zorder=1, alpha=0.85, **look)
    for level in range(0, top + 1, 2):
        ax.scatter(x_stream, np.full(len(stream), level), s=210, color="white", edgecolor="0.2", zorder=2)
        for x, name in zip(x_stream, stream, strict=True):
            ax.text(x, level, name, ha="center", va="center", fontsize=9, zorder=3)
    for k, owner in enumerate(net.owner.tolist()):
        shades = [color(i) for i in owner]
        ax.scatter(x_neurons, np.full(net.d_mlp, 2 * k + 1), s=150, color="white", edgecolor=shades, lw=1.8, zorder=2)
        for x, i in zip(x_neurons, owner, strict=True):
            ax.text(x, 2 * k + 1, str(i), ha="center", va="center", fontsize=8, zorder=3)
    for level in range(top + 1):
        name = f"neurons of\nlayer {level // 2}" if level % 2 else "stream"
        ax.text(-0.4, level, name, ha="right", va="center", fontsize=9)
    ax.set(xlim=(-3.2 * width / 20, width + 0.2), ylim=(-0.3, top + 0.3))
    ax.set_axis_off()
    return ax
