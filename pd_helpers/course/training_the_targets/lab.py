"""A lab on residual MLPs: one feature's response."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers import plots
from pd_helpers.course.kit.lab import Description, Lab, open_frames, reserve_titles, slider, whole
from pd_helpers.course.kit.residual_labs import Stems, mark_layers
from pd_helpers.targets.residual_mlp import ResidualMLP, labels


class ResponseValues(NamedTuple):
    """What a residual MLP answers when one feature is on."""

    feature: int
    value: float
    """The feature's value; all others are 0."""
    outputs: Float[Tensor, " n_features"]
    labels: Float[Tensor, " n_features"]
    added: Float[Tensor, " n_neurons"]
    """What each neuron adds to output `feature` at this value."""
    contributions: Float[Tensor, " n_neurons"]
    """(W_U[i, :] W_out) ⊙ (W_in W_E[:, i]) for this feature i, whatever its value."""


class ResponseLab(Lab):
    """Give one feature of a residual MLP a value; see all outputs, and what each neuron adds to its own; instant.

    >>> ResponseLab(pdh.make_target(pdh.ResidualMLPConfig(), seed=0))
    """

    def __init__(self, target: ResidualMLP, feature: int = 0):
        if not isinstance(target, ResidualMLP) or len(target.W_U) != target.n_features:
            raise ValueError("target must be a ResidualMLP with as many outputs as inputs; ResidualMLPConfig()'s is")
        self.target = target.narrow()[0].cpu()
        n = target.n_features
        self.feature = whole("feature that is on", min(feature, n - 1), n - 1)
        self.value = slider("its value", 1.0, -1.0, 1.0, 0.05, 2)
        controls = [self.feature, self.value]
        super().__init__(controls, 9.0, 3.3, 1, 2)
        largest = max(
            ((self.target.W_U @ mlp.W_out.weight) * (mlp.W_in.weight @ self.target.W_E).T).max().item()
            for mlp in self.target.mlps
        )
        places, neurons = np.arange(n), np.arange(target.n_neurons)
        outputs, bars = self.axes[0]
        [self._outputs] = outputs.plot(places, np.zeros(n), "o", color=plots.color(0), ms=4, label="output")
        [self._labels] = outputs.plot([], [], "x", color=plots.color(3), ms=4, mew=1, label="label")
        [self._ring] = outputs.plot([], [], "o", ms=12, mfc="none", mec="0.1", mew=1.5, clip_on=False, label="its own")
        outputs.set(xlabel="output", ylabel="value", xlim=(-2, n + 1), ylim=(-1.25, 2.15))
        outputs.legend(frameon=False, fontsize=8, ncols=3, loc="lower center")
        marks = {"marker": "_", "ms": 7, "mew": 1.6, "color": "0.25", "ls": "none"}
        [self._contributions] = bars.plot(neurons, np.zeros(len(neurons)), label="contribution", **marks)
        self._added = Stems(bars, "added at this value")
        mark_layers(bars, target)
        bars.set(xlabel="neuron", ylabel="what it adds to that output", ylim=(-0.3 * largest, 1.25 * largest))
        bars.axhline(0, color="0.2", lw=0.8)
        bars.legend(frameon=False, fontsize=8, loc="upper right")
        reserve_titles(self.axes[0])
        open_frames(self.axes[0])
        self.on_move(controls, self.update)
        self.update()

    @torch.no_grad()
    def compute(self) -> ResponseValues:
        """Run the network at this input, layer by layer."""
        net, i, value = self.target, self.feature.value, self.value.value
        x = value * torch.eye(net.n_features)[[i]]
        s, added, contributions = x @ net.W_E.T, [], []
        for mlp in net.mlps:
            h, write = torch.relu(mlp.W_in(s))[0], net.W_U[i] @ mlp.W_out.weight
            added.append(write * h)
            contributions.append(write * (mlp.W_in.weight @ net.W_E[:, i]))
            s = s + mlp(s)
        outputs = (s @ net.W_U.T)[0]
        return ResponseValues(i, value, outputs, labels(x)[0], torch.cat(added), torch.cat(contributions))

    def draw(self, values: ResponseValues) -> None:
        """Move the outputs, the labels and the neurons."""
        i = values.feature
        self._outputs.set_ydata(values.outputs)
        self._labels.set_data(range(len(values.labels)), values.labels)
        self._ring.set_data([i], [values.outputs[i]])
        self._contributions.set_ydata(values.contributions)
        self._added.move(values.added)
        outputs, bars = self.axes[0]
        outputs.title.set_text(f"feature {i} is {values.value:.2f}, the others 0")
        bars.title.set_text(f"neurons and output {i}")

    def describe(self, values: ResponseValues) -> Description:
        """The feature's own output, and the neurons that add most to it."""
        i, added = values.feature, values.added
        output, label = values.outputs[i], values.labels[i]
        others = torch.cat([values.outputs[:i], values.outputs[i + 1 :]])
        largest = ", ".join(str(n) for n in added.abs().topk(3).indices.tolist() if added[n] != 0) or "none"
        return Description(
            f'output {i} = <span class="pdh-output">{output:.3f}</span>, label {label:.3f} · all neurons together '
            f"add {added.sum():.3f} · the largest: {largest}",
            f"With feature {i} at {values.value:.2f} and the others at 0, output {i} is {output:.2f} where the label "
            f"is {label:.2f}, and the other outputs lie between {others.min():.2f} and {others.max():.2f}. All "
            f"neurons together add {added.sum():.2f} to output {i}.",
        )
