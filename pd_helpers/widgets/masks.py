"""Labs on SPD's moving parts: masks drawn from importances, and the sigmoids that make an importance of a gate."""

import math
from collections.abc import Callable

import ipywidgets as w
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers import plots
from pd_helpers.causal_importance import LEAK, hard_sigmoid, lower_leaky, upper_leaky
from pd_helpers.targets import TMS
from pd_helpers.widgets.lab import Lab, slider, whole


class MaskLab(Lab):
    """Set the importance g of each mechanism of a toy model; masks from U(g, 1) show whether the claim holds; instant.

    One feature is on. The subcomponents are the target's own mechanisms, column c of W each. Every draw gives each of
    them a mask for reading (`embed`) and another for writing (`unembed`), both from U(g_c, 1). Left: the outputs of all
    draws. Right: their errors, and the price β3 Σ g of both uses.

    >>> MaskLab(pdh.make_target(pdh.TMSConfig(), seed=0))
    """

    VALUE = 0.75
    """Of the feature that is on."""

    def __init__(self, target: TMS, n_draws: int = 400, beta_3: float = 0.003):
        if not isinstance(target, TMS) or target.identity is not None or target.n_features > 8:
            raise ValueError("target must be a toy model of at most 8 features, no identity layer; TMSConfig()'s is")
        self.target, self.beta_3, n = target, beta_3, target.n_features
        self.feature = whole("feature that is on", 0, n - 1)
        self.g = [slider(f"g of mechanism {c}", 0.0, 0.0, 1.0, 0.05, 2) for c in range(n)]
        draw = torch.Generator().manual_seed(0)
        self._r = torch.rand(2, n_draws, n, generator=draw)  # for both uses; the same at every position of the sliders
        super().__init__([self.feature, *self.g], 9.0, 3.3, 1, 2)
        outputs, errors = self.axes[0]
        places = np.arange(n) + np.linspace(-0.3, 0.3, n_draws)[:, None]
        self._dots = [
            outputs.plot(places[:, j], np.zeros(n_draws), ".", ms=3, alpha=0.5, color=plots.color(j))[0]
            for j in range(n)
        ]
        [self._wanted] = outputs.plot(range(n), np.zeros(n), "_", ms=34, mew=2, color="0.1", label="target")
        largest = target(self.VALUE * torch.eye(n)).amax().item()
        outputs.set(xlabel="output", ylabel="value, one dot per draw", xticks=range(n), ylim=(-0.05, 1.25 * largest))
        outputs.legend(frameon=False, fontsize=9, loc="upper right", markerscale=0.5)
        self._bins = np.linspace(0, 1.25 * largest**2 / n, 41)
        self._bars = errors.bar(self._bins[:-1], np.ones(40), self._bins[1], align="edge", color=plots.color(0))
        self._mean = errors.axvline(0, color=plots.color(3), ls="--", lw=1.5, label="mean: the loss")
        errors.set(xlabel="mean squared error of a draw", ylabel="draws", yscale="log", ylim=(0.7, 3 * n_draws))
        errors.legend(frameon=False, fontsize=9, loc="upper right")
        for ax in self.axes[0]:
            ax.set_title(" ", fontsize=10, y=1)
            ax.spines[["top", "right"]].set_visible(False)
        self.on_move((self.feature, *self.g), self.draw)
        self.draw()

    @torch.no_grad()
    def masked_outputs(self, g: Float[Tensor, " n"], feature: int) -> Float[Tensor, "draws n"]:
        """The outputs under all draws of masks from U(g, 1), with this feature on."""
        W, b = self.target.embed.weight.cpu(), self.target.unembed.bias.cpu()
        read, write = torch.lerp(self._r, torch.ones(()), g)  # each (draws, n)
        hidden = (read * self.VALUE * torch.eye(len(g))[feature]) @ W.T  # (draws, m1)
        return torch.relu(write * (hidden @ W) + b)

    def draw(self) -> None:
        """Show the outputs and errors at these importances."""
        n, feature = len(self.g), self.feature.value
        g = torch.tensor([control.value for control in self.g])
        y = self.masked_outputs(g, feature)
        wanted = self.masked_outputs(torch.ones(n), feature)[0]
        errors = (y - wanted).square().mean(dim=1)
        loss, price = errors.mean().item(), 2 * self.beta_3 * g.sum().item()
        for dots, values in zip(self._dots, y.T, strict=True):
            dots.set_ydata(values)
        self._wanted.set_ydata(wanted)
        counts, _ = np.histogram(errors.clamp(max=self._bins[-1]), self._bins)
        for bar, count in zip(self._bars, counts, strict=True):
            bar.set_height(count)
        self._mean.set_xdata([loss, loss])
        outputs, histogram = self.axes[0]
        outputs.title.set_text(f"feature {feature} at {self.VALUE:g}, {len(y)} draws of masks")
        histogram.title.set_text(f"reconstruction loss {loss:.4f}, price {price:.4f}")
        told = ", ".join(f"{value:.2f}" for value in g)
        own = y[:, feature]
        self.refresh(
            f'reconstruction loss <span class="pdh-recon">{loss:.5f}</span> · price β₃ Σ g of both uses = '
            f"{self.beta_3:g} × 2 × {g.sum():.2f} = {price:.5f} · "
            f'<b>together <span class="pdh-total">{loss + price:.5f}</span></b>',
            f"Importances {told}, feature {feature} at {self.VALUE:g}. Output {feature} lies between {own.min():.2f} "
            f"and {own.max():.2f}; the target's is {wanted[feature]:.2f}. Mean error {loss:.4f}, price {price:.4f}.",
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
    """Where Adam takes a single gate value under this sigmoid, from this start: n_steps + 1 values.

    `up`: the loss is (1 - g)², as of a subcomponent that is needed; otherwise it is g, the price on importance.
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


class SigmoidLab(Lab):
    """Start a gate anywhere, pull its importance up or down, and see with which sigmoid it moves; instant.

    First three panels: the sigmoids, dead zones hatched, the start as a dot. Last: where 200 steps of Adam take it.

    >>> SigmoidLab()
    """

    LOW, HIGH, N_STEPS = -1.0, 2.0, 200

    def __init__(self) -> None:
        self.gate = slider("the gate Γ at the start", -0.5, self.LOW, self.HIGH, 0.1, 1)
        self.pull = w.ToggleButtons(
            options=[("reconstruction pulls g up", "up"), ("minimality pulls g down", "down")],
            style={"button_width": "auto"},
        )
        super().__init__([self.gate, self.pull], 9.2, 2.9, 1, 4)
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
        for ax in self.axes[0]:
            ax.set_title(" ", fontsize=10, y=1)
            ax.spines[["top", "right"]].set_visible(False)
        self.on_move((self.gate, self.pull), self.draw)
        self.draw()

    def draw(self) -> None:
        """Show this start."""
        start, up = self.gate.value, self.pull.value == "up"
        slopes, told = {}, []
        for ax, (name, (sigmoid, _, _)) in zip(self.axes[0], SIGMOIDS.items(), strict=False):
            slopes[name] = slope(name, start)
            path = descend(name, start, up, self.N_STEPS)
            self._dots[name].set_data([start], [sigmoid(torch.tensor(start)).item()])
            self._paths[name].set_data(range(len(path)), path)
            ax.title.set_text(f"{name}: slope {slopes[name]:g}")
            moved = not math.isclose(path[-1], start, abs_tol=1e-9)
            told.append(f"{name} slope {slopes[name]:g}, {f'ends at {path[-1]:.2f}' if moved else 'does not move'}")
        self.axes[0, 3].title.set_text("pulled up" if up else "pulled down")
        values = " · ".join(
            f'{name}: <span class="pdh-{name}">{self._paths[name].get_ydata()[-1]:.2f}</span>' for name in SIGMOIDS
        )
        self.refresh(
            f"Γ after {self.N_STEPS} steps: {values}",
            f"A gate that starts at {start:.1f} and is pulled {'up' if up else 'down'}: {'; '.join(told)}.",
        )
