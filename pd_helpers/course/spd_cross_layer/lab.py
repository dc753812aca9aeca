"""A lab on SPD's subcomponents of residual MLPs with several layers: one feature, in every layer, in every run."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers import plots
from pd_helpers.analysis import importance_matrices, metrics, neuron_contributions
from pd_helpers.course.kit.lab import Description, Lab, choice, open_frames, reserve_titles, whole
from pd_helpers.course.kit.residual_labs import Stems
from pd_helpers.runs.run import Run
from pd_helpers.targets.residual_mlp import ResidualMLP


class LayersValues(NamedTuple):
    """One feature in all layers of one run."""

    run: str
    """Name of the run."""
    feature: int
    target: Float[Tensor, "n_layers d_mlp"]
    """Contributions of the target's neurons to the feature."""
    contributions: Float[Tensor, "n_layers d_mlp"]
    """Contributions of one subcomponent of each W_in, with the whole of W_out."""
    g: dict[str, Float[Tensor, " C"]]
    """Use → importances with only this feature on, at 0.75, largest first."""

    @property
    def shares(self) -> Float[Tensor, " n_layers"]:
        """Each layer's share of the target's positive contributions."""
        layers = self.target.clamp(min=0).sum(dim=1)
        return layers / layers.sum()

    @property
    def n_important(self) -> dict[str, int]:
        """Use → subcomponents that are important for the feature."""
        return {use: int((g > metrics.ALIVE).sum()) for use, g in self.g.items()}

    @property
    def r(self) -> float:
        """Correlation of the contributions with the target's."""
        return torch.corrcoef(torch.stack([self.contributions.flatten(), self.target.flatten()]))[0, 1].item()


class LayersLab(Lab):
    """Pick a run and a feature: its neurons in all layers, and how important which subcomponents are; instant.

    Left: the contributions of the neurons, in the target and in one subcomponent of each W_in. Right: the largest
    importances in every matrix with only this feature on, at 0.75.

    >>> LayersLab({"seed 0": pdh.shipped("spd/resid_mlp_2")}, feature=42)
    """

    SHOWN = 30
    """Subcomponents of each matrix whose importances are drawn."""

    def __init__(self, runs: Mapping[str, Run], feature: int = 42):
        if not runs:
            raise ValueError("runs must hold at least one run; {'two layers': pdh.shipped('spd/resid_mlp_2')} works")
        for run in runs.values():
            if not isinstance(run.target, ResidualMLP) or run.method.name != "spd":
                raise ValueError("runs must be SPD runs on a residual MLP; pdh.shipped('spd/resid_mlp_2') is")
        self.runs = dict(runs)
        self._contributions = {name: neuron_contributions.contributions(run) for name, run in runs.items()}
        self._importances = {name: importance_matrices.importance_matrix(run) for name, run in runs.items()}
        n = min(run.target.n_features for run in runs.values())
        self.run = choice("run", list(runs), next(iter(runs)))
        self.feature = whole("feature", min(feature, n - 1), n - 1)
        controls = [self.run, self.feature]
        super().__init__(controls, 9.2, 3.5, 1, 2)
        left, right = self.axes[0]
        [self._marks] = left.plot([], [], "_", ms=8, mew=1.8, color=plots.color(0), label="target")
        self._stems = Stems(left, "one subcomponent in each W_in")
        self._boundaries = left.vlines([0], -9, 9, color="0.4", ls=":", lw=1)
        targets = [contributions.target for contributions in self._contributions.values()]
        every = torch.cat([target.flatten() for target in targets])
        left.axhline(0, color="0.2", lw=0.8)
        left.set(xlabel="neuron, layer after layer", ylabel="contribution")
        left.set(xlim=(-1, max(target.shape[1] for target in targets)))
        left.set_ylim(every.min().item() - 0.08, 1.25 * every.max().item())
        left.legend(frameon=False, fontsize=8, loc="upper right")
        lines = []
        for k in range(max(len(run.target.mlps) for run in runs.values())):
            for name, marker, style in (("W_in", "o", "-"), ("W_out", "s", "--")):
                look = {"marker": marker, "ls": style, "ms": 3.5, "lw": 1, "color": plots.color((0, 1, 2)[k % 3])}
                lines += right.plot([], [], label=f"layer {k} {name}", **look)
        right.set(xlabel="subcomponents, by importance", ylabel="causal importance g", xlim=(0, self.SHOWN + 1))
        right.set_ylim(-0.04, 1.06)
        right.axhline(metrics.ALIVE, color="0.6", ls=":", lw=1)
        legend = right.legend(frameon=False, fontsize=8, loc="upper right")
        self._entries = list(zip(lines, legend.legend_handles, legend.texts, strict=True))
        reserve_titles(self.axes[0])
        open_frames(self.axes[0])
        self.on_move(controls, self.update)
        self.update()

    def compute(self) -> LayersValues:
        """Look up the feature in the chosen run."""
        name, i = self.run.value, self.feature.value
        contributions, n_layers = self._contributions[name], len(self.runs[name].target.mlps)
        neurons = [
            matrix[i].unflatten(0, (n_layers, -1)) for matrix in (contributions.target, contributions.components)
        ]
        g = {use: matrix[i].sort(descending=True).values for use, matrix in self._importances[name].items()}
        return LayersValues(name, i, *neurons, g)

    def draw(self, values: LayersValues) -> None:
        """Move the neurons' contributions and the importances; lines of layers that the run lacks disappear."""
        n_layers, each = values.target.shape
        self._marks.set_data(np.arange(n_layers * each), values.target.flatten())
        self._stems.move(values.contributions.flatten())
        self._boundaries.set_segments([[(each * k - 0.5, -9), (each * k - 0.5, 9)] for k in range(1, n_layers)])
        every = list(values.g.values())
        for k, (line, *entry) in enumerate(self._entries):
            for part in entry:
                part.set_visible(k < len(every))
            shown = every[k][: self.SHOWN] if k < len(every) else torch.tensor([])
            line.set_data(np.arange(1, len(shown) + 1), shown)
        left, right = self.axes[0]
        left.title.set_text(f"{values.run}, feature {values.feature}")
        right.title.set_text("importances, feature alone at 0.75")

    def describe(self, values: LayersValues) -> Description:
        """Each layer's share, and how many subcomponents are important in each matrix."""
        shares = [f"{share:.0%}" for share in values.shares.tolist()]
        important = ", ".join(f"{_name(use)} {n}" for use, n in values.n_important.items())
        return Description(
            f'shares of the layers <span class="pdh-shares">{" + ".join(shares)}</span> · correlation of the neurons '
            f'{values.r:.3f} · important: <span class="pdh-needed">{important}</span>',
            f"Run {values.run}. Left: contributions of the neurons to feature {values.feature}, of the target and of "
            f"one subcomponent in each W_in; correlation {values.r:.3f}; the layers' shares are {', '.join(shares)}. "
            f"Right: importances; above 0.1 are {important}.",
        )


def _name(use: str) -> str:
    """`layer 1 W_in` for `mlps.1.W_in`."""
    _, layer, matrix = use.split(".")
    return f"layer {layer} {matrix}"
