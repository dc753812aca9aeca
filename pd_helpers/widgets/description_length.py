"""Labs on description length: merging by bits, and the Schatten norm as a stand-in for the rank."""

import math

import torch
from torch import Tensor

from pd_helpers import description_length as dl
from pd_helpers import plots
from pd_helpers.plots.description_length import co_activation, schatten_bars
from pd_helpers.widgets.lab import Lab, slider, whole

N_POINTS = 121
"""Points of the curves."""


class DescriptionLengthLab(Lab):
    """Slide α, and rank-one components merge and split as the bits say (APD eq. 11); instant.

    Left: how often components are active together, in percent; members of a merged group share a frame and a letter.
    Right: bits per input against α for the best way to merge, with all apart and all in one.

    >>> DescriptionLengthLab(active)  # (inputs, C), true where a component is active; C up to 7
    """

    def __init__(self, active: Tensor, alpha: float = 1.0, high: float = 8.0):
        if active.dim() != 2 or not 2 <= active.shape[1] <= 7:
            raise ValueError("active must be (inputs, C) with 2 to 7 components, whose every grouping can be tried")
        self.active, self._choices = active.bool(), dl.partitions(active.shape[1])
        self._names = math.log2(active.shape[1])
        self._lengths = dl.lengths(self.active, self._choices)
        self.alpha = slider("bits per number α", alpha, 0.0, high, 0.05, 2)
        super().__init__([self.alpha], 9.0, 3.7, 1, 2)
        self.on_move([self.alpha], self.draw)
        self.draw()

    def groups(self, alpha: float) -> dl.Groups:
        """The shortest description's groups; as `description_length.shortest`, from a table made once."""
        bits = self._bits(alpha)
        return self._choices[int((bits <= bits.min() + 1e-9).int().argmax())]

    def draw(self) -> None:
        """Show what is merged at this α."""
        alpha, (table, curves) = self.alpha.value, self.axes[0]
        groups, bits = self.groups(alpha), self._bits(alpha)
        for ax in self.axes[0]:
            ax.clear()
        co_activation(table, self.active, groups).set_title("active together, % of inputs", fontsize=10, y=1)
        alphas = torch.linspace(0, self.alpha.max, N_POINTS)
        all_bits = torch.stack([self._bits(a) for a in alphas.tolist()])
        for values, look, shade, name in (
            (all_bits[:, 0], "--", plots.color(1), "all apart"),
            (all_bits[:, -1], "-.", plots.color(2), "all in one"),
            (all_bits.min(dim=1).values, "-", plots.color(0), "best grouping"),
        ):
            curves.plot(alphas, values, look, color=shade, lw=1.8, label=name)
        best = [self.groups(a) for a in alphas.tolist()]
        for i in range(1, N_POINTS):
            if best[i] != best[i - 1]:
                curves.axvline(float(alphas[i - 1 : i + 1].mean()), color="0.75", ls=":", lw=1)
        curves.plot([alpha], [bits.min()], "o", ms=9, mfc="none", mec="0.1", mew=1.5)
        curves.set(xlabel="bits per number α", ylabel="bits per input", xlim=(0, self.alpha.max))
        curves.set_ylim(0, 1.3 * float(all_bits[:, 0].max()))
        curves.set_title("description length; dotted: a group changes", fontsize=10, y=1)
        curves.legend(frameon=False, fontsize=9, loc="upper left")
        curves.spines[["top", "right"]].set_visible(False)
        told = " ".join("{" + " ".join(map(str, group)) + "}" for group in groups)
        self.refresh(
            f'<b>{len(groups)} components</b>: <span class="pdh-groups">{told}</span> · '
            f'<span class="pdh-bits">{bits.min():.3f}</span> bits per input, {bits[0]:.3f} with all apart',
            f"At α = {alpha:.2f} the shortest description has the groups {told}, in {bits.min():.2f} bits; "
            f"all apart take {bits[0]:.2f} and all in one {bits[-1]:.2f}. Numbers in the table are percentages of "
            "inputs on which two components are both active.",
        )

    def _bits(self, alpha: float) -> Tensor:
        return self._lengths @ torch.tensor([self._names, alpha], dtype=torch.float64)


class SchattenLab(Lab):
    """A matrix of chosen rank: its singular values and its factors' lengths, to the power p_S; instant.

    The factors multiply to the matrix whatever the turn; at 0° they are its singular vectors. Some noise may be added
    to the matrix, which then has full rank.
    """

    SIZE = 4

    def __init__(self, p: float = 0.5, rank: int = 2, turn: float = 45.0, seed: int = 0):
        draw = torch.Generator().manual_seed(seed)
        self._left, _ = torch.linalg.qr(torch.randn(self.SIZE, self.SIZE, generator=draw).double())
        self._right, _ = torch.linalg.qr(torch.randn(self.SIZE, self.SIZE, generator=draw).double())
        self._noise = torch.randn(self.SIZE, self.SIZE, generator=draw).double()
        self.p = slider("Schatten exponent p_S", p, 0.05, 2.0, 0.05, 2)
        self.rank = whole("true rank", 1, self.SIZE)
        self.rank.min, self.rank.value = 1, rank
        self.turn = slider("turn of the factors, in degrees", turn, 0.0, 45.0, 5.0, 0)
        self.noise = slider("noise", 0.0, 0.0, 0.2, 0.01, 2)
        controls = [self.p, self.rank, self.turn, self.noise]
        super().__init__(controls, 9.0, 3.5, 1, 2)
        self.on_move(controls, self.draw)
        self.draw()

    def matrix(self) -> Tensor:
        """The matrix of the sliders: singular values 1, 0.8, 0.6 and 0.4 as far as its rank goes, and the noise."""
        sigma = torch.linspace(1, 0.4, self.SIZE).double() * (torch.arange(self.SIZE) < self.rank.value)
        return self._left * sigma @ self._right.T + self.noise.value * self._noise

    def draw(self) -> None:
        """Show the matrix of the sliders."""
        P, p = self.matrix(), self.p.value
        U, V = dl.turned_factors(P, self.turn.value)
        true, factorised = self._norms(P, U, V, p)
        bars, curves = self.axes[0]
        for ax in self.axes[0]:
            ax.clear()
        schatten_bars(bars, torch.linalg.svdvals(P), U.norm(dim=0) * V.norm(dim=1), p)
        bars.set(ylim=(0, 1.35))
        bars.set_title("what each of them pays", fontsize=10, y=1)
        bars.legend(frameon=False, fontsize=9, loc="upper right", ncols=2)
        exponents = torch.linspace(0.02, 2, N_POINTS).tolist()
        sums = torch.tensor([self._norms(P, U, V, exponent) for exponent in exponents])
        curves.plot(exponents, sums[:, 0], "-", color=plots.color(0), lw=2, label="singular values, eq. 19")
        curves.plot(exponents, sums[:, 1], "--", color=plots.color(1), lw=2, label="factors, eq. 22")
        curves.axhline(self.rank.value, color="0.5", ls=":", lw=1.4, label="true rank")
        curves.axvline(p, color="0.2", lw=0.8)
        curves.set(xlabel="exponent $p_S$", ylabel="sum over all", xlim=(0, 2), ylim=(0, 1.45 * self.SIZE))
        curves.set_title("Schatten norm against the exponent", fontsize=10, y=1)
        curves.legend(frameon=False, fontsize=9, loc="upper right")
        for ax in self.axes[0]:
            ax.spines[["top", "right"]].set_visible(False)
        self.refresh(
            f'rank {self.rank.value} · singular values <span class="pdh-true">{true:.3f}</span> · factors '
            f'<span class="pdh-factorised">{factorised:.3f}</span>',
            f"A 4 × 4 matrix of rank {self.rank.value} with noise {self.noise.value:.2f}, at p_S = {p:.2f}: its "
            f"singular values pay {true:.2f} in all, its factors, turned by {self.turn.value:.0f}°, {factorised:.2f}. "
            "Right: both sums for exponents from 0 to 2, and the rank as a dotted line.",
        )

    def _norms(self, P: Tensor, U: Tensor, V: Tensor, p: float) -> tuple[float, float]:
        return dl.schatten(P, p).item(), dl.sum_of_powers(U.norm(dim=0) * V.norm(dim=1), p).item()
