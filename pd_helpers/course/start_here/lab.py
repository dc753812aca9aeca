"""A lab on toy models of superposition: one mechanism at a time."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers import plots
from pd_helpers.course.kit.lab import Description, Lab, slider, whole, wipe
from pd_helpers.targets.tms import TMS


class MechanismValues(NamedTuple):
    """What the network computes with one mechanism turned down."""

    component: int
    mask: float
    """What mechanism `component` is multiplied by."""
    feature: int
    """The feature that is on."""
    W: Float[Tensor, "2 n_features"]
    """The target's weights."""
    masked_W: Float[Tensor, "2 n_features"]
    """The weights with this mask."""
    output: Float[Tensor, " n_features"]
    """The output with this mask."""
    target_output: Float[Tensor, " n_features"]
    """The output with every mechanism on."""


class MechanismLab(Lab):
    """Turn one mechanism of a trained toy model down and watch the output follow; instant.

    One feature is on. Its mechanism Z(c), column c of W and zeros elsewhere, is multiplied by a mask m between 0
    (ablated) and 1 (as trained); the sliders choose c, m, and which feature is on.

    >>> MechanismLab(pdh.make_target(pdh.TMSConfig(), seed=0))
    """

    def __init__(self, target: TMS):
        if target.embed.out_features != 2 or target.identity is not None:
            raise ValueError("target must have two hidden dimensions and no identity layer; TMSConfig()'s has")
        self.target = target
        last = target.embed.in_features - 1
        self.mask = slider("mask m of the mechanism", 1.0, 0.0, 1.0, 0.05, 2)
        self.component = whole("mechanism c", 0, last)
        self.feature = whole("feature that is on", 0, last)
        controls = [self.mask, self.component, self.feature]
        super().__init__(controls, 8.0, 3.3, 1, 2)
        self.on_move(controls, self.update)
        self.update()

    @torch.no_grad()
    def compute(self) -> MechanismValues:
        """Run the network with this mask, and without."""
        W, b = self.target.embed.weight.cpu(), self.target.unembed.bias.cpu()
        c, mask, feature = self.component.value, self.mask.value, self.feature.value
        masks = torch.ones(W.shape[1])
        masks[c] = mask
        x, masked_W = torch.eye(W.shape[1])[feature], W * masks
        target_output, output = (torch.relu(x @ M.T @ M + b) for M in (W, masked_W))
        return MechanismValues(c, mask, feature, W, masked_W, output, target_output)

    def draw(self, values: MechanismValues) -> None:
        """Draw the columns of W and the outputs."""
        arrows, bars = self.axes[0]
        for ax in self.axes[0]:
            wipe(ax)
        plots.columns(arrows, values.W, labels=False, colors=["0.8"] * values.W.shape[1], width=5.0)
        plots.columns(arrows, values.masked_W)
        arrows.set_title(f"columns of W, column {values.component} times {values.mask:.2f}", fontsize=10, y=1)
        plots.outputs(bars, values.output, values.target_output)
        bars.set_title(f"output when only feature {values.feature} is on", fontsize=10, y=1)

    def describe(self, values: MechanismValues) -> Description:
        """The output of the feature that is on."""
        feature, output = values.feature, values.output[values.feature]
        target_output = values.target_output[values.feature]
        return Description(
            f'output {feature} = <span class="pdh-output">{output:.3f}</span>, and {target_output:.3f} with every '
            "mechanism on",
            f"With mechanism {values.component} at mask {values.mask:.2f} and only feature {feature} on, output "
            f"{feature} is {output:.2f}; with every mechanism on it is {target_output:.2f}.",
        )
