"""A lab on compressed computation: the kind and size of mixing, and the feature probability, under sliders."""

import ipywidgets as w
import pandas

from pd_helpers import mixing, plots
from pd_helpers.widgets.lab import STYLE, WIDE, Lab, choice


class MixingLab(Lab):
    """Which networks beat the naive solution? Two shipped sweeps looked up; instant.

    Left: loss per feature against the size σ of the mixing matrix, at p = 0.01. Right: against p, at each kind's own σ.
    The sliders choose a kind, whose curves stand out, and mark one network on each; the cross is that network on
    labels without mixing.

    >>> MixingLab(pdh.shipped_sweep("mlp/mixing", "sigma"), pdh.shipped_sweep("mlp/mixing", "probability"))
    """

    def __init__(self, by_sigma: "pandas.DataFrame", by_p: "pandas.DataFrame"):
        clean = by_p[(by_p["kind"] == "none") & (by_p["p"] == 0.01)]
        if not len(clean) or not len(by_sigma):
            raise ValueError("by_p must have a row of kind none at p = 0.01; the shipped sweep 'probability' has")
        self.by_sigma, self.by_p = pandas.concat([clean, by_sigma]), by_p
        kinds = [kind for kind in plots.KINDS if kind in set(by_sigma["kind"])]
        self.kind = w.SelectionSlider(description="mixing", options=kinds, value="symmetric", style=STYLE, layout=WIDE)
        sigmas, probabilities = (sorted(set(table)) for table in (self.by_sigma["sigma"], by_p["p"]))
        self.sigma = choice("size σ of M", sigmas, min(sigmas, key=lambda s: abs(s - 0.03)))
        self.p = choice("feature probability p", probabilities, 0.01)
        super().__init__([self.kind, self.sigma, self.p], 9.2, 3.7, 1, 2)
        left, right = self.axes[0]
        plots.mixing_losses(left, self.by_sigma, "sigma").set_title("at p = 0.01", fontsize=10, y=1)
        plots.mixing_losses(right, by_p, "p").set_title("at each kind's own σ", fontsize=10, y=1)
        self._curves = [line for ax in (left, right) for line in ax.lines if line.get_gid() in plots.KINDS]
        left.set_ylim(0.04, 0.24)  # room for the crosses
        right.set_ylim(0.04, 0.15)
        right.legend(frameon=False, fontsize=7.5, ncols=2, loc="upper center")
        self._marks = [
            (
                ax.plot([], [], "o", ms=10, mfc="none", mec="0.1", mew=2)[0],
                ax.plot([], [], "x", ms=8, c="0.1", mew=2)[0],
            )
            for ax in self.axes[0]
        ]
        self.on_move((self.kind, self.sigma, self.p), self.draw)
        self.draw()

    def draw(self) -> None:
        """Mark the networks that the sliders name."""
        kind, sigma, p = self.kind.value, self.sigma.value, self.p.value
        for curve in self._curves:
            curve.set_alpha(1 if curve.get_gid() == kind else 0.35)
        table = self.by_sigma
        one = table[(table["sigma"] == sigma) & table["kind"].isin([kind, "none"])].iloc[0]
        other = self.by_p[(self.by_p["kind"] == kind) & (self.by_p["p"] == p)].iloc[0]
        for (ring, cross), row, at in zip(self._marks, (one, other), ("sigma", "p"), strict=True):
            ring.set_data([row[at]], [row["loss"]])
            cross.set_data([row[at]], [row["clean_loss"]])
        naive = mixing.naive_loss(mixing.mixing(kind, sigma))
        verdict = "below" if one["loss"] < 1 / 12 - 5e-4 else "above" if one["loss"] > 1 / 12 + 5e-4 else "at"
        self.refresh(
            f'<b>σ = {sigma:g}: L/p = <span class="pdh-loss">{one["loss"]:.4f}</span></b>, {verdict} the naive 0.0833 '
            f"(naive on these labels: {naive:.4f}) · without mixing in the labels {one['clean_loss']:.4f}<br>"
            f'p = {p:g}, σ = {other["sigma"]:.3g}: L/p = <span class="pdh-loss-p">{other["loss"]:.4f}</span> · without '
            f"mixing {other['clean_loss']:.4f}",
            f"Loss per feature of trained networks; a ring for the one chosen, a cross for it on clean labels. "
            f"With {kind} mixing of size {sigma:g} at p = 0.01: {one['loss']:.4f}, on clean labels "
            f"{one['clean_loss']:.4f}; size {other['sigma']:.3g} at p = {p:g}: {other['loss']:.4f}, on clean labels "
            f"{other['clean_loss']:.4f}.",
        )
