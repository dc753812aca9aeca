"""A lab on compressed computation: the kind and size of mixing, and the feature probability, under sliders."""

from typing import NamedTuple

import pandas

from pd_helpers.course.compressed_computation import ideas
from pd_helpers.course.compressed_computation.plots import KINDS, mixing_losses
from pd_helpers.course.kit.lab import Description, Lab, choice
from pd_helpers.runs.calls import check_columns


class MixingNetwork(NamedTuple):
    """One trained network of a sweep."""

    sigma: float
    """Standard deviation of the entries of the mixing matrix M."""
    p: float
    """Feature probability."""
    loss: float
    """Loss per feature L / p on the labels it was trained on."""
    clean_loss: float
    """Loss per feature on labels without mixing."""


class MixingValues(NamedTuple):
    """The two networks that the sliders choose."""

    kind: str
    """Kind of mixing."""
    by_sigma: MixingNetwork
    """The network of the chosen size of mixing, at p = 0.01."""
    by_p: MixingNetwork
    """The network of the chosen feature probability, at the kind's own size of mixing."""
    naive_loss: float
    """Loss per feature of the naive solution on the labels of `by_sigma`."""

    @property
    def verdict(self) -> str:
        """Whether the loss of `by_sigma` is below, at or above the 1/12 of the naive solution on clean labels."""
        difference = self.by_sigma.loss - 1 / 12
        return "below" if difference < -5e-4 else "above" if difference > 5e-4 else "at"


class MixingLab(Lab):
    """Which networks beat the naive solution? Two shipped sweeps looked up; instant.

    Left: loss per feature against the size σ of the mixing matrix, at p = 0.01. Right: against p, at each kind's own σ.
    The sliders choose a kind, whose curves stand out, and mark one network on each; the cross is that network on
    labels without mixing.

    >>> MixingLab(pdh.shipped_sweep("mlp/mixing", "sigma"), pdh.shipped_sweep("mlp/mixing", "probability"))
    """

    def __init__(self, by_sigma: "pandas.DataFrame", by_p: "pandas.DataFrame"):
        for name, table in (("by_sigma", by_sigma), ("by_p", by_p)):
            check_columns(name, table, MixingNetwork._fields, "pdh.shipped_sweep('mlp/mixing', 'sigma')")
        clean = by_p[(by_p["kind"] == "none") & (by_p["p"] == 0.01)]
        if not len(clean):
            raise ValueError("by_p must have a row of kind none at p = 0.01; the shipped sweep 'probability' has one")
        if not len(by_sigma):
            raise ValueError("by_sigma must have rows, but is empty; the shipped sweep 'sigma' works")
        self.by_sigma, self.by_p = pandas.concat([clean, by_sigma]), by_p
        kinds = [kind for kind in KINDS if kind in set(by_sigma["kind"])]
        self.kind = choice("mixing", kinds, "symmetric")
        sigmas, probabilities = (sorted(set(table)) for table in (self.by_sigma["sigma"], by_p["p"]))
        self.sigma = choice("size σ of M", sigmas, min(sigmas, key=lambda s: abs(s - 0.03)))
        self.p = choice("feature probability p", probabilities, 0.01)
        controls = [self.kind, self.sigma, self.p]
        super().__init__(controls, 9.2, 3.7, 1, 2)
        left, right = self.axes[0]
        mixing_losses(left, self.by_sigma, "sigma").set_title("at p = 0.01", fontsize=10, y=1)
        mixing_losses(right, by_p, "p").set_title("at each kind's own σ", fontsize=10, y=1)
        self._curves = [line for ax in (left, right) for line in ax.lines if line.get_gid() in KINDS]
        left.set_ylim(0.04, 0.24)  # room for the crosses
        right.set_ylim(0.04, 0.15)
        right.legend(frameon=False, fontsize=7.5, ncols=2, loc="upper center")
        ring = {"marker": "o", "ms": 10, "mfc": "none", "mec": "0.1", "mew": 2}
        cross = {"marker": "x", "ms": 8, "c": "0.1", "mew": 2}
        self._marks = [[ax.plot([], [], ls="", **look)[0] for look in (ring, cross)] for ax in (left, right)]
        self.on_move(controls, self.update)
        self.update()

    def compute(self) -> MixingValues:
        """Look up the two networks; without mixing every kind is the network of clean labels."""
        kind, sigma, p = self.kind.value, self.sigma.value, self.p.value
        by_sigma = self.by_sigma[(self.by_sigma["sigma"] == sigma) & self.by_sigma["kind"].isin([kind, "none"])]
        by_p = self.by_p[(self.by_p["kind"] == kind) & (self.by_p["p"] == p)]
        networks = [
            MixingNetwork(*(float(table.iloc[0][column]) for column in MixingNetwork._fields))
            for table in (by_sigma, by_p)
        ]
        return MixingValues(kind, *networks, ideas.naive_loss(ideas.mixing(kind, sigma)))

    def draw(self, values: MixingValues) -> None:
        """Let the kind's curves stand out, and mark both networks."""
        for curve in self._curves:
            curve.set_alpha(1 if curve.get_gid() == values.kind else 0.35)
        left, right = values.by_sigma, values.by_p
        for (ring, cross), x, network in zip(self._marks, (left.sigma, right.p), (left, right), strict=True):
            ring.set_data([x], [network.loss])
            cross.set_data([x], [network.clean_loss])

    def describe(self, values: MixingValues) -> Description:
        """The losses of both networks."""
        one, other = values.by_sigma, values.by_p
        return Description(
            f'<b>σ = {one.sigma:g}: L/p = <span class="pdh-loss">{one.loss:.4f}</span></b>, {values.verdict} the naive '
            f"0.0833 (naive on these labels: {values.naive_loss:.4f}) · without mixing in the labels "
            f"{one.clean_loss:.4f}<br>"
            f'p = {other.p:g}, σ = {other.sigma:.3g}: L/p = <span class="pdh-loss-p">{other.loss:.4f}</span> · without '
            f"mixing {other.clean_loss:.4f}",
            f"Loss per feature of trained networks; a ring for the one chosen, a cross for it on clean labels. "
            f"With {values.kind} mixing of size {one.sigma:g} at p = 0.01: {one.loss:.4f}, on clean labels "
            f"{one.clean_loss:.4f}; size {other.sigma:.3g} at p = {other.p:g}: {other.loss:.4f}, on clean labels "
            f"{other.clean_loss:.4f}.",
        )
