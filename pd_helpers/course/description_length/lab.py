"""Labs on description length: merging by bits, and the Schatten norm as a stand-in for the rank."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers import plots
from pd_helpers.core.training import checked_seed
from pd_helpers.course.description_length import ideas
from pd_helpers.course.description_length.plots import co_activation, schatten_bars
from pd_helpers.course.kit import partitions
from pd_helpers.course.kit.lab import Description, Lab, open_frames, slider, whole, wipe

N_POINTS = 121
"""Number of points of a curve."""


class DescriptionLengthValues(NamedTuple):
    """The shortest description at one α; all numbers are bits per input."""

    alpha: float
    groups: partitions.Groups
    """Components that are described together."""
    bits: float
    """Length of the shortest description."""
    bits_apart: float
    """Length with all components apart."""
    bits_together: float
    """Length with all components in one group."""


class DescriptionLengthLab(Lab):
    """Slide α, and rank-one components merge and split as the bits say (APD eq. 11); instant.

    Left: how often components are active together, in percent; members of a merged group share a frame and a letter.
    Right: bits per input against α for the best way to merge, with all apart and all in one.

    >>> DescriptionLengthLab(active)  # (inputs, C), true where a component is active; C up to 7
    """

    def __init__(self, active: Tensor, alpha: float = 1.0, high: float = 8.0):
        if active.dim() != 2 or not 2 <= active.shape[1] <= 7 or not len(active):
            raise ValueError(
                "active must be (inputs, C) with 2 to 7 components, few enough to try every way to group them"
            )
        self.active, self._groupings = active.bool(), partitions.partitions(active.shape[1])
        self._lengths = ideas.lengths(self.active, self._groupings)
        self.alpha = slider("bits per number α", alpha, 0.0, high, 0.05, 2)
        super().__init__([self.alpha], 9.0, 3.7, 1, 2)
        self._draw_curves()
        self.on_move([self.alpha], self.update)
        self.update()

    def _draw_curves(self) -> None:
        """Draw what is the same at every α: the three curves, and where a group changes."""
        curves, alphas = self.axes[0, 1], torch.linspace(0, self.alpha.max, N_POINTS)
        bits = torch.stack([self._bits(alpha) for alpha in alphas.tolist()])
        for values, look, shade, name in (
            (bits[:, 0], "--", plots.color(1), "all apart"),
            (bits[:, -1], "-.", plots.color(2), "all in one"),
            (bits.min(dim=1).values, "-", plots.color(0), "best grouping"),
        ):
            curves.plot(alphas, values, look, color=shade, lw=1.8, label=name)
        best = [self.groups(alpha) for alpha in alphas.tolist()]
        for i in range(1, N_POINTS):
            if best[i] != best[i - 1]:
                curves.axvline(float(alphas[i - 1 : i + 1].mean()), color="0.75", ls=":", lw=1)
        [self._ring] = curves.plot([], [], "o", ms=9, mfc="none", mec="0.1", mew=1.5)
        curves.set(xlabel="bits per number α", ylabel="bits per input", xlim=(0, self.alpha.max))
        curves.set_ylim(0, 1.3 * float(bits[:, 0].max()))
        curves.set_title("description length; dotted: a group changes", fontsize=10, y=1)
        curves.legend(frameon=False, fontsize=9, loc="upper left")
        open_frames([curves])

    def groups(self, alpha: float) -> partitions.Groups:
        """The groups of the shortest description: those of `ideas.shortest`, from a table that is made once."""
        bits = self._bits(alpha)
        return self._groupings[int((bits <= bits.min() + 1e-9).int().argmax())]

    def _bits(self, alpha: float) -> Tensor:
        """Bits per input of every way to group the components, from all apart to all in one."""
        bits_per_name = math.log2(self.active.shape[1])
        return self._lengths @ torch.tensor([bits_per_name, alpha], dtype=torch.float64)

    def compute(self) -> DescriptionLengthValues:
        """Find the shortest description at the slider's α."""
        alpha, bits = self.alpha.value, self._bits(self.alpha.value)
        return DescriptionLengthValues(alpha, self.groups(alpha), bits.min().item(), bits[0].item(), bits[-1].item())

    def draw(self, values: DescriptionLengthValues) -> None:
        """Frame the groups, and move the ring along the lowest curve."""
        table = self.axes[0, 0]
        wipe(table)
        co_activation(table, self.active, values.groups).set_title("active together, % of inputs", fontsize=10, y=1)
        self._ring.set_data([values.alpha], [values.bits])

    def describe(self, values: DescriptionLengthValues) -> Description:
        """The groups, and the bits they take."""
        groups = " ".join("{" + " ".join(map(str, group)) + "}" for group in values.groups)
        return Description(
            f'<b>{len(values.groups)} components</b>: <span class="pdh-groups">{groups}</span> · '
            f'<span class="pdh-bits">{values.bits:.3f}</span> bits per input, {values.bits_apart:.3f} with all apart',
            f"At α = {values.alpha:.2f} the shortest description has the groups {groups}, in {values.bits:.2f} bits; "
            f"all apart take {values.bits_apart:.2f} and all in one {values.bits_together:.2f}. Numbers in the table "
            "are percentages of inputs on which two components are both active.",
        )


class SchattenValues(NamedTuple):
    """A matrix, its factors, and both sums of powers."""

    p: float
    """Schatten exponent p_S."""
    rank: int
    """Rank without the noise."""
    turn: float
    """How far the factors are turned away from the singular vectors, in degrees."""
    noise: float
    singular_values: Float[Tensor, "4"]
    factor_lengths: Float[Tensor, "4"]
    """‖U_r‖ ‖V_r‖ of every factor r."""

    def norm(self, p: float) -> float:
        """Σ_m σ_m^p over the singular values σ_m (APD eq. 19)."""
        return ideas.sum_of_powers(self.singular_values, p).item()

    def factorised_norm(self, p: float) -> float:
        """Σ_r (‖U_r‖ ‖V_r‖)^p over the factors (APD eq. 22)."""
        return ideas.sum_of_powers(self.factor_lengths, p).item()


class SchattenLab(Lab):
    """A matrix of chosen rank: its singular values and its factors' lengths, to the power p_S; instant.

    The factors multiply to the matrix whatever the turn; at 0° they are its singular vectors. Some noise may be added
    to the matrix, which then has full rank.

    >>> SchattenLab()
    """

    SIZE = 4

    def __init__(self, p: float = 0.5, rank: int = 2, turn: float = 45.0, seed: int = 0):
        draw = torch.Generator().manual_seed(checked_seed(seed))
        self._left, _ = torch.linalg.qr(torch.randn(self.SIZE, self.SIZE, generator=draw).double())
        self._right, _ = torch.linalg.qr(torch.randn(self.SIZE, self.SIZE, generator=draw).double())
        self._noise = torch.randn(self.SIZE, self.SIZE, generator=draw).double()
        self.p = slider("Schatten exponent p_S", p, 0.05, 2.0, 0.05, 2)
        self.rank = whole("true rank", rank, self.SIZE, low=1)
        self.turn = slider("turn of the factors, in degrees", turn, 0.0, 45.0, 5.0, 0)
        self.noise = slider("noise", 0.0, 0.0, 0.2, 0.01, 2)
        controls = [self.p, self.rank, self.turn, self.noise]
        super().__init__(controls, 9.0, 3.5, 1, 2)
        bars, curves = self.axes[0]
        bars.set_title("what each one adds to its sum", fontsize=10, y=1)
        [self._norms] = curves.plot([], [], "-", color=plots.color(0), lw=2, label="singular values, eq. 19")
        [self._factorised] = curves.plot([], [], "--", color=plots.color(1), lw=2, label="factors, eq. 22")
        self._rank = curves.axhline(0, color="0.5", ls=":", lw=1.4, label="true rank")
        self._p = curves.axvline(0, color="0.2", lw=0.8)
        curves.set(xlabel="exponent $p_S$", ylabel="sum over all", xlim=(0, 2), ylim=(0, 1.45 * self.SIZE))
        curves.set_title("Schatten norm against the exponent", fontsize=10, y=1)
        curves.legend(frameon=False, fontsize=9, loc="upper right")
        open_frames(self.axes[0])
        self.on_move(controls, self.update)
        self.update()

    def matrix(self) -> Tensor:
        """The matrix of the sliders: singular values 1, 0.8, 0.6 and 0.4 as far as its rank goes, and the noise."""
        sigma = torch.linspace(1, 0.4, self.SIZE).double() * (torch.arange(self.SIZE) < self.rank.value)
        return self._left * sigma @ self._right.T + self.noise.value * self._noise

    def compute(self) -> SchattenValues:
        """Factorise the matrix of the sliders."""
        P, turn = self.matrix(), self.turn.value
        U, V = ideas.turned_factors(P, turn)
        sigma, lengths = torch.linalg.svdvals(P), U.norm(dim=0) * V.norm(dim=1)
        return SchattenValues(self.p.value, self.rank.value, turn, self.noise.value, sigma, lengths)

    def draw(self, values: SchattenValues) -> None:
        """Draw the bars, and move the curves."""
        bars, exponents = self.axes[0, 0], torch.linspace(0.02, 2, N_POINTS).tolist()
        wipe(bars)
        schatten_bars(bars, values.singular_values, values.factor_lengths, values.p).set_ylim(0, 1.35)
        bars.legend(frameon=False, fontsize=9, loc="upper right", ncols=2)
        self._norms.set_data(exponents, [values.norm(p) for p in exponents])
        self._factorised.set_data(exponents, [values.factorised_norm(p) for p in exponents])
        self._rank.set_ydata([values.rank] * 2)
        self._p.set_xdata([values.p] * 2)

    def describe(self, values: SchattenValues) -> Description:
        """Both sums at the chosen exponent."""
        norm, factorised = values.norm(values.p), values.factorised_norm(values.p)
        return Description(
            f'rank {values.rank} · singular values <span class="pdh-true">{norm:.3f}</span> · factors '
            f'<span class="pdh-factorised">{factorised:.3f}</span>',
            f"A 4 × 4 matrix of rank {values.rank} with noise {values.noise:.2f}, at p_S = {values.p:.2f}: the powers "
            f"of its singular values add up to {norm:.2f}, those of its factors, turned by {values.turn:.0f}°, to "
            f"{factorised:.2f}. Right: both sums for exponents from 0 to 2, and the rank as a dotted line.",
        )
