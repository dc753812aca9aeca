"""A lab on SPD's subcomponents of residual MLPs with several layers: one feature, in every layer, in every run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import ipywidgets as w
import numpy as np
import torch

from pd_helpers import experiments, metrics, plots
from pd_helpers.residual_mlp import ResidualMLP
from pd_helpers.widgets.lab import STYLE, WIDE, Lab, whole

if TYPE_CHECKING:
    from pd_helpers.runs import Run


class LayersLab(Lab):
    """Pick a run and a feature: its neurons in all layers, and how important which subcomponents are; instant.

    Left: the contributions of the neurons, in the target and in one subcomponent of each W_in. Right: the largest
    importances in every matrix with only this feature on, at 0.75.

    >>> LayersLab({"seed 0": pdh.shipped("spd/resid_mlp_2")}, feature=42)
    """

    SHOWN = 30
    """Subcomponents of each matrix whose importances are drawn."""

    def __init__(self, runs: "Mapping[str, Run]", feature: int = 42):
        for run in runs.values():
            if not isinstance(run.target, ResidualMLP) or run.importance is None:
                raise ValueError("runs must be SPD runs on a residual MLP; pdh.shipped('spd/resid_mlp_2') is")
        self.found = {
            name: (experiments.contributions(run), experiments.importance_matrix(run)) for name, run in runs.items()
        }
        self.layers = {name: len(run.target.mlps) for name, run in runs.items()}
        n = min(run.target.n_features for run in runs.values())
        self.run = w.SelectionSlider(description="run", options=list(runs), style=STYLE, layout=WIDE)
        self.feature = whole("feature", min(feature, n - 1), n - 1)
        super().__init__([self.run, self.feature], 9.2, 3.5, 1, 2)
        left, right = self.axes[0]
        [self._theirs] = left.plot([], [], "_", ms=8, mew=1.8, color=plots.color(0), label="target")
        self._mine = left.vlines([0], 0, 1, color=plots.color(1), lw=4, label="one subcomponent in each W_in")
        self._boundaries = left.vlines([0], -9, 9, color="0.4", ls=":", lw=1)
        everything = torch.cat([found.target.flatten() for found, _ in self.found.values()])
        most = max(found.target.shape[1] for found, _ in self.found.values())
        left.axhline(0, color="0.2", lw=0.8)
        left.set(xlabel="neuron, layer after layer", ylabel="contribution", xlim=(-1, most))
        left.set_ylim(everything.min().item() - 0.08, 1.25 * everything.max().item())
        left.legend(frameon=False, fontsize=8, loc="upper right")
        self._lines = []
        for k in range(max(self.layers.values())):
            for name, marker, style in (("W_in", "o", "-"), ("W_out", "s", "--")):
                look = {"marker": marker, "ls": style, "ms": 3.5, "lw": 1, "color": plots.color((0, 1, 2)[k % 3])}
                self._lines += right.plot([], [], label=f"layer {k} {name}", **look)
        right.set(xlabel="subcomponents, by importance", ylabel="causal importance g", xlim=(0, self.SHOWN + 1))
        right.set_ylim(-0.04, 1.06)
        right.axhline(metrics.ALIVE, color="0.6", ls=":", lw=1)
        legend = right.legend(frameon=False, fontsize=8, loc="upper right")
        self._entries = list(zip(self._lines, legend.legend_handles, legend.texts, strict=True))
        for ax in self.axes[0]:
            ax.set_title(" ", fontsize=10, y=1)
            ax.spines[["top", "right"]].set_visible(False)
        self.on_move((self.run, self.feature), self.draw)
        self.draw()

    def draw(self) -> None:
        """Show this feature in this run."""
        i, name = self.feature.value, self.run.value
        (found, g), n_layers = self.found[name], self.layers[name]
        target, mine = found.target[i], found.components[i]
        neurons = np.arange(len(target))
        self._theirs.set_data(neurons, target)
        self._mine.set_segments([[(k, 0.0), (k, height)] for k, height in enumerate(mine.tolist())])
        each = len(target) // n_layers
        self._boundaries.set_segments([[(each * k - 0.5, -9), (each * k - 0.5, 9)] for k in range(1, n_layers)])
        counts = []
        for k, (line, *entry) in enumerate(self._entries):
            use = list(g)[k] if k < len(g) else None
            for part in entry:
                part.set_visible(use is not None)
            values = g[use][i].sort(descending=True).values[: self.SHOWN] if use else torch.tensor([])
            line.set_data(np.arange(1, len(values) + 1), values)
            if use:
                counts.append((line.get_label(), int((g[use][i] > metrics.ALIVE).sum())))
        shares = target.clamp(min=0).unflatten(0, (n_layers, each)).sum(dim=1)
        shares = [f"{share:.0%}" for share in (shares / shares.sum()).tolist()]
        r = torch.corrcoef(torch.stack([mine, target]))[0, 1].item()
        left, right = self.axes[0]
        left.title.set_text(f"{name}, feature {i}")
        right.title.set_text("importances, feature alone at 0.75")
        needed = ", ".join(f"{label} {count}" for label, count in counts)
        self.refresh(
            f'shares of the layers <span class="pdh-shares">{" + ".join(shares)}</span> · correlation of the neurons '
            f'{r:.3f} · important: <span class="pdh-needed">{needed}</span>',
            f"Run {name}. Left: contributions of the neurons to feature {i}, of the target and of one subcomponent in "
            f"each W_in; correlation {r:.3f}; the layers' shares are {', '.join(shares)}. Right: importances; above "
            f"0.1 are {needed}.",
        )
