"""A lab on residual MLPs: one feature's response."""

import numpy as np
import torch

from pd_helpers import plots
from pd_helpers.residual_mlp import ResidualMLP, labels
from pd_helpers.widgets.lab import Lab, slider, whole


class ResponseLab(Lab):
    """Give one feature of a residual MLP a value; see all outputs, and what each neuron adds to its own; instant.

    >>> ResponseLab(pdh.make_target(pdh.ResidualMLPConfig(), seed=0))
    """

    def __init__(self, target: ResidualMLP, feature: int = 0):
        if not isinstance(target, ResidualMLP) or len(target.W_U) != target.n_features:
            raise ValueError("target must be a ResidualMLP with as many outputs as inputs; ResidualMLPConfig()'s is")
        self.target = target.narrow()[0].cpu()
        self.feature = whole("feature that is on", 0, target.n_features - 1)
        self.feature.value = feature
        self.value = slider("its value", 1.0, -1.0, 1.0, 0.05, 2)
        super().__init__([self.feature, self.value], 9.0, 3.3, 1, 2)
        largest = max(
            ((self.target.W_U @ mlp.W_out.weight) * (mlp.W_in.weight @ self.target.W_E).T).max().item()
            for mlp in self.target.mlps
        )
        places, neurons = np.arange(target.n_features), np.arange(target.n_neurons)
        outputs, bars = self.axes[0]
        [self._others] = outputs.plot(places, np.zeros(len(places)), "o", color=plots.color(0), ms=4, label="output")
        [self._labels] = outputs.plot([], [], "x", color=plots.color(3), ms=4, mew=1, label="label")
        [self._own] = outputs.plot([], [], "o", ms=12, mfc="none", mec="0.1", mew=1.5, clip_on=False, label="its own")
        outputs.set(xlabel="output", ylabel="value", xlim=(-2, len(places) + 1), ylim=(-1.25, 2.15))
        outputs.legend(frameon=False, fontsize=8, ncols=3, loc="lower center")
        marks = {"marker": "_", "ms": 7, "mew": 1.6, "color": "0.25", "ls": "none"}
        [self._contributions] = bars.plot(neurons, np.zeros(len(neurons)), label="contribution", **marks)
        self._added = bars.vlines(neurons, 0, 1, color=plots.color(1), lw=4, label="added at this value")
        for boundary in np.cumsum([mlp.W_in.out_features for mlp in target.mlps])[:-1]:
            bars.axvline(boundary - 0.5, color="0.4", ls=":", lw=1)
        bars.set(xlabel="neuron", ylabel="what it adds to that output", ylim=(-0.3 * largest, 1.25 * largest))
        bars.axhline(0, color="0.2", lw=0.8)
        bars.legend(frameon=False, fontsize=8, loc="upper right")
        for ax in self.axes[0]:
            ax.set_title(" ", fontsize=10, y=1)
            ax.spines[["top", "right"]].set_visible(False)
        self.on_move((self.feature, self.value), self.draw)
        self.draw()

    @torch.no_grad()
    def draw(self) -> None:
        """Show the network at this input."""
        net, i, value = self.target, self.feature.value, self.value.value
        x = value * torch.eye(net.n_features)[[i]]
        s, added, contributions = x @ net.W_E.T, [], []
        for mlp in net.mlps:
            h, write = torch.relu(mlp.W_in(s))[0], net.W_U[i] @ mlp.W_out.weight
            added.append(write * h)
            contributions.append(write * (mlp.W_in.weight @ net.W_E[:, i]))
            s = s + mlp(s)
        y, wanted, added, contributions = (s @ net.W_U.T)[0], labels(x)[0], torch.cat(added), torch.cat(contributions)
        self._others.set_ydata(y)
        self._labels.set_data(range(len(y)), wanted)
        self._own.set_data([i], [y[i]])
        self._contributions.set_ydata(contributions)
        self._added.set_segments([[(n, 0.0), (n, height)] for n, height in enumerate(added.tolist())])
        outputs, bars = self.axes[0]
        outputs.title.set_text(f"feature {i} is {value:.2f}, the others 0")
        bars.title.set_text(f"neurons and output {i}")
        others = torch.cat([y[:i], y[i + 1 :]])
        top = ", ".join(str(n) for n in added.abs().topk(3).indices.tolist() if added[n] != 0) or "none"
        self.refresh(
            f'output {i} = <span class="pdh-output">{y[i]:.3f}</span>, label {wanted[i]:.3f} · all neurons together '
            f"add {added.sum():.3f} · the largest: {top}",
            f"With feature {i} at {value:.2f} and the others at 0, output {i} is {y[i]:.2f} where the label is "
            f"{wanted[i]:.2f}, and the other outputs lie between {others.min():.2f} and {others.max():.2f}. All "
            f"neurons together add {added.sum():.2f} to output {i}.",
        )
