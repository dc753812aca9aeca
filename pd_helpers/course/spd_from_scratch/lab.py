"""Labs on SPD's moving parts: masks drawn from importances, and the sigmoids that make an importance of a gate."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers import plots
from pd_helpers.core.causal_importance import LEAK, hard_sigmoid, lower_leaky, upper_leaky
from pd_helpers.core.config import shown
from pd_helpers.course.kit.lab import Description, Lab, buttons, open_frames, reserve_titles, slider, whole
from pd_helpers.targets.tms import TMS

MOST_DRAWS = 100_000
"""Largest number of draws of masks, each of which is a dot."""


class MaskValues(NamedTuple):
    """What the network computes under all draws of masks, with one feature on."""

    feature: int
    g: Float[Tensor, " n"]
    """Importances of the mechanisms."""
    outputs: Float[Tensor, "draws n"]
    target_output: Float[Tensor, " n"]
    errors: Float[Tensor, " draws"]
    """Mean squared error of each draw."""
    importance_loss: float
    """β3 Σ g over both uses."""

    @property
    def recon(self) -> float:
        """Reconstruction loss: the mean error over all draws."""
        return self.errors.mean().item()

    @property
    def total(self) -> float:
        """Sum of both losses."""
        return self.recon + self.importance_loss


class MaskLab(Lab):
    """Set the importance g of each mechanism of a toy model; masks from U(g, 1) show whether the claim holds; instant.

    One feature is on. The subcomponents are the target's own mechanisms, column c of W each. Every draw gives each of
    them a mask for reading (`embed`) and another for writing (`unembed`), both from U(g_c, 1). Left: the outputs of all
    draws. Right: their errors; its title compares their mean with the importance loss β3 Σ g of both uses.

    >>> MaskLab(pdh.make_target(pdh.TMSConfig(), seed=0))
    """

    VALUE = 0.75
    """Value of the feature that is on."""

    def __init__(self, target: TMS, n_draws: int = 400, beta_3: float = 0.003):
        if not isinstance(target, TMS) or target.identity is not None or target.n_features > 8:
            raise ValueError(
                "target must be a toy model with at most 8 features and no identity layer; TMSConfig()'s is"
            )
        if not 1 <= n_draws <= MOST_DRAWS:
            raise ValueError(f"n_draws must be from 1 to {MOST_DRAWS}, but is {shown(n_draws)}; 400 works")
        if not 0 <= beta_3 < math.inf:
            raise ValueError(f"beta_3 must be a finite number of at least 0, but is {shown(beta_3)}; 0.003 works")
        self.target, self.beta_3, n = target, beta_3, target.n_features
        self.feature = whole("feature that is on", 0, n - 1)
        self.g = [slider(f"g of mechanism {c}", 0.0, 0.0, 1.0, 0.05, 2) for c in range(n)]
        draw = torch.Generator().manual_seed(0)
        self._r = torch.rand(2, n_draws, n, generator=draw)  # for both uses; the same at every position of the sliders
        controls = [self.feature, *self.g]
        super().__init__(controls, 9.0, 3.3, 1, 2)
        outputs, errors = self.axes[0]
        places = np.arange(n) + np.linspace(-0.3, 0.3, n_draws)[:, None]
        self._dots = [
            outputs.plot(places[:, j], np.zeros(n_draws), ".", ms=3, alpha=0.5, color=plots.color(j))[0]
            for j in range(n)
        ]
        [self._target] = outputs.plot(range(n), np.zeros(n), "_", ms=34, mew=2, color="0.1", label="target")
        largest = target(self.VALUE * torch.eye(n)).amax().item()
        outputs.set(xlabel="output", ylabel="value, one dot per draw", xticks=range(n), ylim=(-0.05, 1.25 * largest))
        outputs.legend(frameon=False, fontsize=9, loc="upper right", markerscale=0.5)
        self._bins = np.linspace(0, 1.25 * largest**2 / n, 41)
        self._bars = errors.bar(self._bins[:-1], np.ones(40), self._bins[1], align="edge", color=plots.color(0))
        self._mean = errors.axvline(0, color=plots.color(3), ls="--", lw=1.5, label="mean: the loss")
        errors.set(xlabel="mean squared error of a draw", ylabel="draws", yscale="log", ylim=(0.7, 3 * n_draws))
        errors.legend(frameon=False, fontsize=9, loc="upper right")
        reserve_titles(self.axes[0])
        open_frames(self.axes[0])
        self.on_move(controls, self.update)
        self.update()

    @torch.no_grad()
    def masked_outputs(self, g: Float[Tensor, " n"], feature: int) -> Float[Tensor, "draws n"]:
        """The outputs under all draws of masks from U(g, 1), with this feature on."""
        W, b = self.target.embed.weight.cpu(), self.target.unembed.bias.cpu()
        read, write = torch.lerp(self._r, torch.ones(()), g)  # each (draws, n)
        hidden = (read * self.VALUE * torch.eye(len(g))[feature]) @ W.T  # (draws, m1)
        return torch.relu(write * (hidden @ W) + b)

    def compute(self) -> MaskValues:
        """Run the network with every draw of masks."""
        g, feature = torch.tensor([control.value for control in self.g]), self.feature.value
        outputs = self.masked_outputs(g, feature)
        target_output = self.masked_outputs(torch.ones(len(g)), feature)[0]
        errors = (outputs - target_output).square().mean(dim=1)
        return MaskValues(feature, g, outputs, target_output, errors, 2 * self.beta_3 * g.sum().item())

    def draw(self, values: MaskValues) -> None:
        """Move the dots, the bars and the line of the mean."""
        for dots, outputs in zip(self._dots, values.outputs.T, strict=True):
            dots.set_ydata(outputs)
        self._target.set_ydata(values.target_output)
        counts, _ = np.histogram(values.errors.clamp(max=self._bins[-1]), self._bins)
        for bar, count in zip(self._bars, counts, strict=True):
            bar.set_height(count)
        self._mean.set_xdata([values.recon] * 2)
        outputs, errors = self.axes[0]
        outputs.title.set_text(f"feature {values.feature} at {self.VALUE:g}, {len(values.outputs)} draws of masks")
        errors.title.set_text(f"reconstruction loss {values.recon:.4f}, importance loss {values.importance_loss:.4f}")

    def describe(self, values: MaskValues) -> Description:
        """Both losses, and the range of the feature's own output."""
        own, target_output = values.outputs[:, values.feature], values.target_output[values.feature]
        return Description(
            f'reconstruction loss <span class="pdh-recon">{values.recon:.5f}</span> · importance loss β₃ Σ g of both '
            f"uses = {self.beta_3:g} × 2 × {values.g.sum():.2f} = {values.importance_loss:.5f} · "
            f'<b>together <span class="pdh-total">{values.total:.5f}</span></b>',
            f"Importances {', '.join(f'{g:.2f}' for g in values.g)}, feature {values.feature} at {self.VALUE:g}. "
            f"Output {values.feature} lies between {own.min():.2f} and {own.max():.2f}; the target's is "
            f"{target_output:.2f}. Mean error {values.recon:.4f}, importance loss {values.importance_loss:.4f}.",
        )


SIGMOIDS: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "hard": (hard_sigmoid, 0.0, 0.0),
    "lower-leaky": (lower_leaky, LEAK, 0.0),
    "upper-leaky": (upper_leaky, 0.0, LEAK),
}
"""Name → sigmoid, its slope below 0 and its slope above 1; between them the slope is 1."""


def slope(name: str, gate: float) -> float:
    """A sigmoid's derivative at this gate value."""
    _, below, above = SIGMOIDS[name]
    return below if gate < 0 else above if gate > 1 else 1.0


def descend(name: str, gate: float, up: bool, n_steps: int = 200, lr: float = 0.02) -> list[float]:
    """The path on which Adam takes a single gate value under this sigmoid: n_steps + 1 values, from `gate` on.

    Where `up` is true the loss is (1 - g)², as for a subcomponent that is needed; otherwise it is g, as in the
    importance minimality loss.
    """
    _, below, above = SIGMOIDS[name]
    path, mean, square = [gate], 0.0, 0.0
    for step in range(1, n_steps + 1):
        g = below * min(gate, 0) + min(max(gate, 0), 1) + above * max(gate - 1, 0)
        gradient = (2 * (g - 1) if up else 1) * slope(name, gate)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        gate -= lr * mean / (1 - 0.9**step) / (math.sqrt(square / (1 - 0.999**step)) + 1e-8)
        path.append(gate)
    return path


class SigmoidValues(NamedTuple):
    """The paths of one gate under each sigmoid."""

    gate: float
    """The gate at the start."""
    up: bool
    """Whether its importance is pulled up; otherwise it is pulled down."""
    g: dict[str, float]
    """Sigmoid → importance at the start."""
    slopes: dict[str, float]
    """Sigmoid → its derivative at the start."""
    paths: dict[str, list[float]]
    """Sigmoid → the gate at the start and after every step of Adam."""

    @property
    def ends(self) -> dict[str, float]:
        """Sigmoid → the gate after the last step."""
        return {name: path[-1] for name, path in self.paths.items()}


class SigmoidLab(Lab):
    """Start a gate anywhere, pull its importance up or down, and see with which sigmoid it moves; instant.

    First three panels: the sigmoids, dead zones hatched, the start as a dot. Last: where 200 steps of Adam take it.

    >>> SigmoidLab()
    """

    LOW, HIGH, N_STEPS = -1.0, 2.0, 200

    def __init__(self) -> None:
        self.gate = slider("the gate Γ at the start", -0.5, self.LOW, self.HIGH, 0.1, 1)
        self.pull = buttons([("reconstruction pulls g up", "up"), ("minimality pulls g down", "down")])
        controls = [self.gate, self.pull]
        super().__init__(controls, 9.2, 2.9, 1, 4)
        looks = zip(SIGMOIDS, ("0.35", plots.color(0), plots.color(1)), (":", "-", "--"), (3.0, 2.0, 2.0), strict=True)
        x, self._dots, self._paths = torch.linspace(self.LOW, self.HIGH, 301), {}, {}
        paths = self.axes[0, 3]
        for ax, (name, color, style, width) in zip(self.axes[0], looks, strict=False):
            for low, high in ((self.LOW, 0.0), (1.0, self.HIGH)):
                if slope(name, (low + high) / 2) == 0:
                    ax.axvspan(low, high, facecolor="0.94", edgecolor="0.75", hatch="//", lw=0)
            ax.plot(x, SIGMOIDS[name][0](x), color=color, ls=style, lw=width)
            [self._dots[name]] = ax.plot([0], [0], "o", color="0.1", ms=8, zorder=3, clip_on=False)
            ax.set(xlabel="gate Γ", xlim=(self.LOW, self.HIGH), ylim=(-0.15, 1.25), xticks=[-1, 0, 1, 2])
            [self._paths[name]] = paths.plot([], [], color=color, ls=style, lw=width, label=name)
        self.axes[0, 0].set_ylabel("importance g")
        paths.axhspan(0, 1, facecolor="0.9", lw=0, zorder=0)
        paths.set(xlabel="step of Adam", ylabel="gate Γ", xlim=(0, self.N_STEPS), ylim=(self.LOW - 0.15, 4.0))
        paths.legend(frameon=False, fontsize=8, loc="upper right")
        reserve_titles(self.axes[0])
        open_frames(self.axes[0])
        self.on_move(controls, self.update)
        self.update()

    def compute(self) -> SigmoidValues:
        """Let Adam pull the gate under each sigmoid."""
        gate, up = self.gate.value, self.pull.value == "up"
        return SigmoidValues(
            gate,
            up,
            g={name: sigmoid(torch.tensor(gate)).item() for name, (sigmoid, _, _) in SIGMOIDS.items()},
            slopes={name: slope(name, gate) for name in SIGMOIDS},
            paths={name: descend(name, gate, up, self.N_STEPS) for name in SIGMOIDS},
        )

    def draw(self, values: SigmoidValues) -> None:
        """Move the dots and the paths."""
        for ax, name in zip(self.axes[0], SIGMOIDS, strict=False):
            self._dots[name].set_data([values.gate], [values.g[name]])
            self._paths[name].set_data(range(len(values.paths[name])), values.paths[name])
            ax.title.set_text(f"{name}: slope {values.slopes[name]:g}")
        self.axes[0, 3].title.set_text("pulled up" if values.up else "pulled down")

    def describe(self, values: SigmoidValues) -> Description:
        """Where the gate ends under each sigmoid."""
        ends = " · ".join(f'{name}: <span class="pdh-{name}">{end:.2f}</span>' for name, end in values.ends.items())
        sentences = []
        for name, end in values.ends.items():
            moves = not math.isclose(end, values.gate, abs_tol=1e-9)
            course = f"ends at {end:.2f}" if moves else "does not move"
            sentences.append(f"{name} slope {values.slopes[name]:g}, {course}")
        return Description(
            f"Γ after {self.N_STEPS} steps: {ends}",
            f"A gate that starts at {values.gate:.1f} and is pulled {'up' if values.up else 'down'}: "
            f"{'; '.join(sentences)}.",
        )
