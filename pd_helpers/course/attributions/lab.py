"""A lab on attributions: one input moves across the kinks of a toy model, and three estimates follow."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers.analysis.ablation import ablated, root_mean_square
from pd_helpers.core.attributions import tangents
from pd_helpers.course.attributions.plots import LOOKS, effect_bars
from pd_helpers.course.kit.lab import Description, Lab, menu, open_frames, slider, whole, wipe
from pd_helpers.targets.tms import TMS

ALL = "all (root mean square)"
"""The choice of all outputs together."""
N_POINTS = 101
"""Number of points of a curve."""


class AttributionValues(NamedTuple):
    """Three estimates of each component's effect on the chosen output: `gradient`, `integrated` and `ablation`."""

    cut: str
    """Name of the components."""
    first: float
    """Value of feature 0."""
    second: float
    """Value of the other feature that is on."""
    output: int | str
    """The output on which effects are measured, or `ALL`."""
    component: int
    """The component of the curves."""
    outputs: Float[Tensor, " n_features"]
    """The network's outputs at this input."""
    effects: dict[str, Float[Tensor, " C"]]
    """Estimate → effect of every component at this input: signed on one output, root mean square over all."""
    moving: Float[Tensor, " points"]
    """Values of the second feature, from 0 to 1."""
    curves: dict[str, Float[Tensor, " points"]]
    """Estimate → effect of the chosen component at each of these."""
    kinks: list[float]
    """Values of the second feature at which an output switches on or off."""


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
        if not cuts:
            raise ValueError("cuts must hold at least one set of components; {'all': W.unsqueeze(0)} works")
        for name, P in cuts.items():
            if P.ndim != 3 or P.shape[1:] != W.shape or not torch.allclose(P.sum(dim=0), W, atol=1e-4):
                raise ValueError(f"the components of {name!r} must add up to the target's W, {tuple(W.shape)}")
        self.target, self.cuts = target, dict(cuts)
        self.second = int((W.T @ W)[0].argmin())
        """The feature that is on beside feature 0: the one whose column points away most."""
        self.cut = menu("components", list(cuts))
        self.first_value = slider("value of feature 0", 0.5, 0.0, 1.0, 0.05, 2)
        self.second_value = slider(f"value of feature {self.second}", 0.6, 0.0, 1.0, 0.05, 2)
        self.output = menu("effect on output", [ALL, *range(W.shape[1])])
        self.component = whole("component of the curves", 0, len(next(iter(cuts.values()))) - 1)
        controls = [self.cut, self.first_value, self.second_value, self.output, self.component]
        super().__init__(controls, 9.2, 3.5, 1, 2)
        self.on_move([self.cut], lambda: self.offer(self.component, len(self.cuts[self.cut.value]) - 1))
        self.on_move(controls[1:], self.update)
        self.update()

    @torch.no_grad()
    def compute(self) -> AttributionValues:
        """Estimate all effects at this input, and along the way of the second feature."""
        first, second, component = self.first_value.value, self.second_value.value, self.component.value
        moving = torch.linspace(0, 1, N_POINTS).to(self.target.embed.weight)
        x = torch.zeros(N_POINTS + 1, self.target.n_features).to(moving)
        x[:, 0] = first
        x[:-1, self.second], x[-1, self.second] = moving, second
        effects = {name: self._on_chosen_output(values) for name, values in self.effects(x).items()}  # (C, inputs)
        on = self.target(x[:-1]) > 0
        switches = (on[1:] != on[:-1]).any(dim=1).nonzero()[:, 0].tolist()
        return AttributionValues(
            cut=self.cut.value,
            first=first,
            second=second,
            output=self.output.value,
            component=component,
            outputs=self.target(x[-1:])[0],
            effects={name: values[:, -1] for name, values in effects.items()},
            moving=moving,
            curves={name: values[component, :-1] for name, values in effects.items()},
            kinks=[float(moving[i : i + 2].mean()) for i in switches],
        )

    def effects(self, x: Float[Tensor, "inputs n_features"]) -> dict[str, Float[Tensor, "C inputs n_features"]]:
        """Estimate → signed effect of every component on every output.

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

    def _on_chosen_output(self, effects: Float[Tensor, "C inputs n_features"]) -> Float[Tensor, "C inputs"]:
        """Effects on the chosen output, signed, or their root mean square over all outputs."""
        return root_mean_square(effects).T if self.output.value == ALL else effects[..., self.output.value]

    def draw(self, values: AttributionValues) -> None:
        """Draw the bars of all components and the curves of one."""
        bars, curves = self.axes[0]
        for ax in self.axes[0]:
            wipe(ax)
        effect_bars(bars, values.effects)
        of_all = values.output == ALL
        bars.set_ylabel("effect, r.m.s. over outputs" if of_all else f"effect on output {values.output}")
        bars.set_title("every component, at this input", fontsize=10, y=1)
        top = max(0.1, *(float(effects.abs().max()) for effects in values.effects.values()))
        bars.set_ylim(0 if of_all else -1.35 * top, 1.35 * top)
        bars.legend(frameon=False, fontsize=8, ncols=3, loc="upper center")
        for name, curve in values.curves.items():
            look = {key: LOOKS[name][key] for key in ("color", "ls")}
            curves.plot(values.moving, curve, lw=1.8, **look)
            curves.plot([values.second], [values.effects[name][values.component]], "o", ms=5, color=look["color"])
        for kink in values.kinks:
            curves.axvline(kink, color="0.6", ls=":", lw=1)
        curves.axvline(values.second, color="0.2", lw=0.8)
        curves.axhline(0, color="0.2", lw=0.8)
        curves.set(xlabel=f"value of feature {self.second}", xlim=(0, 1))
        curves.set_title(f"component {values.component}; dotted: an output switches", fontsize=10, y=1)
        open_frames([curves])

    def describe(self, values: AttributionValues) -> Description:
        """The three estimates for the chosen component."""
        c, on = values.component, f"output {values.output}"
        effects = {name: float(effects[c]) for name, effects in values.effects.items()}
        spans = " · ".join(f'{name} <span class="pdh-{name}">{effect:.3f}</span>' for name, effect in effects.items())
        outputs = ", ".join(f"{output:.2f}" for output in values.outputs.tolist())
        return Description(
            f"component {c}: {spans} · outputs {outputs}",
            f"With {values.cut}, feature 0 at {values.first:.2f} and feature {self.second} at {values.second:.2f}, the "
            f"outputs are {outputs}. Effects of component {c} on "
            f"{'all outputs, root mean square' if values.output == ALL else on}: "
            f"{', '.join(f'{name} {effect:.3f}' for name, effect in effects.items())}.",
        )
