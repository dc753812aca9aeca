"""A lab on attributions: one input moves across the kinks of a toy model, and three estimates follow."""

from collections.abc import Mapping

import ipywidgets as w
import torch
from torch import Tensor

from pd_helpers.ablation import ablated, root_mean_square
from pd_helpers.attributions import tangents
from pd_helpers.plots.attributions import LOOKS, effect_bars
from pd_helpers.targets import TMS
from pd_helpers.widgets.lab import STYLE, WIDE, Lab, slider, whole, wipe

ALL = "all (root mean square)"
N_POINTS = 101
"""Points of the curves."""


class AttributionLab(Lab):
    """Gradient, integrated gradients and real ablation of each component, for one input with two features on; instant.

    Left: all components at this input. Right: one of them, while the second feature moves from 0 to 1; dotted lines
    are the kinks, where an output switches on or off.

    >>> AttributionLab(target, {"mechanisms": Z, "singular vectors": S})  # each (C, n_hidden, n_features)
    """

    def __init__(self, target: TMS, cuts: Mapping[str, Tensor]):
        W = target.embed.weight.detach()
        if target.identity is not None:
            raise ValueError("target must be a toy model without an identity layer; TMSConfig()'s is")
        for name, P in cuts.items():
            if P.shape[1:] != W.shape or not torch.allclose(P.sum(dim=0), W, atol=1e-4):
                raise ValueError(f"the components of {name!r} must add up to the target's W, {tuple(W.shape)}")
        self.target, self.cuts = target, dict(cuts)
        others = (W.T @ W)[0]
        self.second = int(others.argmin())
        self.cut = w.Dropdown(description="components", options=list(cuts), style=STYLE, layout=WIDE)
        self.first_value = slider("value of feature 0", 0.5, 0.0, 1.0, 0.05, 2)
        self.second_value = slider(f"value of feature {self.second}", 0.6, 0.0, 1.0, 0.05, 2)
        self.output = w.Dropdown(
            description="effect on output", options=[ALL, *range(W.shape[1])], style=STYLE, layout=WIDE
        )
        self.component = whole("component of the curves", 0, len(next(iter(cuts.values()))) - 1)
        controls = [self.cut, self.first_value, self.second_value, self.output, self.component]
        super().__init__(controls, 9.2, 3.5, 1, 2)
        self.on_move([self.cut], self._recut)
        self.on_move(controls[1:], self.draw)
        self.draw()

    @torch.no_grad()
    def draw(self) -> None:
        """Show this input."""
        moving = torch.linspace(0, 1, N_POINTS).to(self.target.embed.weight)
        x = torch.zeros(N_POINTS + 1, self.target.n_features).to(moving)
        x[:, 0] = self.first_value.value
        x[:-1, self.second], x[-1, self.second] = moving, self.second_value.value
        effects = {name: self._seen(values) for name, values in self.effects(x).items()}  # each (C, inputs)
        bars, curves = self.axes[0]
        for ax in self.axes[0]:
            wipe(ax)
        c, unit = self.component.value, "" if self.output.value == ALL else f" {self.output.value}"
        effect_bars(bars, {name: values[:, -1] for name, values in effects.items()})
        bars.set(ylabel=f"effect on output{unit}" if unit else "effect, r.m.s. over outputs")
        bars.set_title("every component, at this input", fontsize=10, y=1)
        top = max(0.1, *(float(values[:, -1].abs().max()) for values in effects.values()))
        bars.set_ylim(-1.35 * top if unit else 0, 1.35 * top)
        bars.legend(frameon=False, fontsize=8, ncols=3, loc="upper center")
        for name, values in effects.items():
            look = {key: LOOKS[name][key] for key in ("color", "ls")}
            curves.plot(moving, values[c, :-1], lw=1.8, **look)
            curves.plot([self.second_value.value], [values[c, -1]], "o", ms=5, color=look["color"])
        on = self.target(x[:-1]) > 0
        for kink in (on[1:] != on[:-1]).any(dim=1).nonzero()[:, 0].tolist():
            curves.axvline(float(moving[kink : kink + 2].mean()), color="0.6", ls=":", lw=1)
        curves.axvline(self.second_value.value, color="0.2", lw=0.8)
        curves.axhline(0, color="0.2", lw=0.8)
        curves.set(xlabel=f"value of feature {self.second}", xlim=(0, 1))
        curves.set_title(f"component {c}; dotted: an output switches", fontsize=10, y=1)
        curves.spines[["top", "right"]].set_visible(False)
        y, here = self.target(x[-1:])[0], {name: float(values[c, -1]) for name, values in effects.items()}
        told = ", ".join(f"{name} {value:.3f}" for name, value in here.items())
        numbers = ", ".join(f"{value:.2f}" for value in y.tolist())
        self.refresh(
            f'component {c}: gradient <span class="pdh-gradient">{here["gradient"]:.3f}</span> · integrated '
            f'<span class="pdh-integrated">{here["integrated"]:.3f}</span> · ablation '
            f'<span class="pdh-ablation">{here["ablation"]:.3f}</span> · outputs {numbers}',
            f"With {self.cut.value}, feature 0 at {self.first_value.value:.2f} and feature {self.second} at "
            f"{self.second_value.value:.2f}, the outputs are {numbers}. Effects of component {c} on "
            f"{f'output{unit}' if unit else 'all outputs, root mean square'}: {told}.",
        )

    def effects(self, x: Tensor) -> dict[str, Tensor]:
        """Estimate → signed effects (C, inputs, outputs).

        The integral from zero weights has a closed form here: with a = WᵀWx, output o is ReLU(t² a + b) on the way, its
        derivative along P_c is t times that of z at t = 1, ż, and the integral ż / 2a of what the output gains.
        """
        P, W, b = self.cuts[self.cut.value], self.target.embed.weight, self.target.unembed.bias
        a = x @ W.T @ W  # (inputs, outputs)
        moved = x @ (P.mT @ W + W.T @ P).mT  # (C, inputs, outputs): ż
        gained = self.target(x) - torch.relu(b)
        return {
            "gradient": tangents(self.target, x, {"embed": P}),
            "integrated": torch.where(a == 0, 0.0, moved / (2 * a) * gained),
            "ablation": ablated(self.target, x, {"embed": P}),
        }

    def _seen(self, effects: Tensor) -> Tensor:
        """(C, inputs): on the chosen output, signed, or on all."""
        return root_mean_square(effects).T if self.output.value == ALL else effects[..., self.output.value]

    def _recut(self) -> None:
        last = len(self.cuts[self.cut.value]) - 1
        self.component.value = min(self.component.value, last)
        self.component.max = last
        self.draw()
