"""A lab on APD's components of a residual MLP: one feature's neurons, in the target and in its components."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pd_helpers import plots
from pd_helpers.analysis import neuron_contributions
from pd_helpers.course.kit.lab import Description, Lab, choice, open_frames, reserve_titles, whole
from pd_helpers.course.kit.residual_labs import Stems, decomposed_by_apd, mark_layers
from pd_helpers.runs.run import Run
from pd_helpers.targets.features import one_hot


class FeatureValues(NamedTuple):
    """One feature, computed by the components with the largest attributions."""

    feature: int
    n_on: int
    """Number of components that are on: the first ones of `order`."""
    order: Int[Tensor, " C"]
    """All components, the one with the largest attribution first."""
    attributions: Float[Tensor, " C"]
    """Their attributions, in this order."""
    target: Float[Tensor, " n_neurons"]
    """Contributions of the target's neurons to the feature."""
    contributions: Float[Tensor, " n_neurons"]
    """Contributions in the sum of the components that are on."""
    added: float
    """What the components that are on add to the feature's output when it is 1, without the skip connection."""
    target_added: float
    """What the target adds."""
    served: list[int]
    """Features whose first component is the same."""

    @property
    def r(self) -> float:
        """Correlation of the contributions with the target's."""
        return torch.corrcoef(torch.stack([self.contributions, self.target]))[0, 1].item()


class FeatureLab(Lab):
    """Pick a feature: its neurons in the target and in its component; then let more components help; instant.

    Left: the neurons' contributions to the feature, in the target and in the sum of the components that are on. Right:
    the attributions of the components with the largest ones, which are switched on in this order.

    >>> FeatureLab(pdh.shipped("apd/resid_mlp_1"), feature=42)
    """

    SHOWN = 8
    """Components whose attributions are drawn."""

    @torch.no_grad()
    def __init__(self, run: Run, feature: int = 42):
        net = decomposed_by_apd(run)
        self.run, self._attributions = run, neuron_contributions.feature_attributions(run)  # (n_features, C)
        C, n = self._attributions.shape[1], net.n_features
        if C < 2:
            raise ValueError("run must have two components or more, but has one; pdh.shipped('apd/resid_mlp_1') works")
        layers = [
            [run.components.layers[f"mlps.{i}.{name}"].P for name in ("W_in", "W_out")] for i in range(len(net.mlps))
        ]
        self._read = torch.cat([P_in @ net.W_E for P_in, _ in layers], dim=1)  # (C, n_neurons, n_features)
        self._write = torch.cat([(net.W_U @ P_out).mT for _, P_out in layers], dim=1)
        self._target = neuron_contributions.contributions(run).target  # (n_features, n_neurons)
        self.feature = whole("feature", min(feature, n - 1), n - 1)
        self.n_on = choice("components on", [*(n for n in (1, 2, 3, 5, 10, 30) if n < C), C], 1)
        controls = [self.feature, self.n_on]
        super().__init__(controls, 9.2, 3.4, 1, 2)
        neurons, ranks = np.arange(net.n_neurons), np.arange(min(self.SHOWN, C))
        left, right = self.axes[0]
        [self._marks] = left.plot(neurons, 0.0 * neurons, "_", ms=8, mew=1.8, color=plots.color(0), label="target")
        self._contributions = Stems(left, "components that are on")
        mark_layers(left, net)
        low, high = self._target.min().item(), self._target.max().item()
        left.set(xlabel="neuron", ylabel="contribution", ylim=(low - 0.08, 1.2 * high))
        left.axhline(0, color="0.2", lw=0.8)
        left.legend(frameon=False, fontsize=8, loc="upper right")
        self._bars = right.bar(ranks, 0.0 * ranks, color="0.8", edgecolor="0.3")
        top = 1.1 * self._attributions.max().item()
        right.set(xlabel="components, by attribution", ylabel="attribution", ylim=(0, top), xticks=ranks)
        reserve_titles(self.axes[0])
        open_frames(self.axes[0])
        self.on_move(controls, self.update)
        self.update()

    @torch.no_grad()
    def compute(self) -> FeatureValues:
        """Run the network on this feature with the components that are on."""
        i, n_on, net = self.feature.value, self.n_on.value, self.run.target
        order = self._attributions[i].argsort(descending=True)
        on = order[:n_on]
        contributions = self._read[on, :, i].sum(dim=0) * self._write[on, :, i].sum(dim=0)  # (n_neurons,)
        x, mask = one_hot(net.n_features)[[i]], torch.zeros(1, len(order), dtype=torch.bool)
        mask[0, on] = True
        skip = net.W_U[i] @ net.W_E[:, i]
        added, target_added = self.run.components(x, mask).output[0, i] - skip, net(x)[0, i] - skip
        served = (self._attributions.argmax(dim=1) == order[0]).nonzero().flatten().tolist()
        return FeatureValues(
            feature=i,
            n_on=n_on,
            order=order,
            attributions=self._attributions[i][order],
            target=self._target[i],
            contributions=contributions,
            added=added.item(),
            target_added=target_added.item(),
            served=served,
        )

    def draw(self, values: FeatureValues) -> None:
        """Move the neurons' contributions and the bars of the attributions."""
        self._marks.set_ydata(values.target)
        self._contributions.move(values.contributions)
        for rank, (bar, value) in enumerate(zip(self._bars, values.attributions.tolist(), strict=False)):
            bar.set_height(value)
            bar.set_facecolor(plots.color(1) if rank < values.n_on else "0.85")
        left, right = self.axes[0]
        right.set_xticklabels(values.order[: self.SHOWN].tolist())
        left.title.set_text(f"neurons of feature {values.feature}")
        right.title.set_text("orange: on" if values.n_on > 1 else f"orange: on, component {values.order[0].item()}")

    def describe(self, values: FeatureValues) -> Description:
        """What is added to the feature's output, and who else is served."""
        i, n_on = values.feature, values.n_on
        (first, second), attributions = values.order[:2].tolist(), values.attributions
        return Description(
            f'{"one component" if n_on == 1 else f"{n_on} components"} on: <span class="pdh-adds">{values.added:.3f}'
            f"</span> added to output {i} at 1, by the target {values.target_added:.3f} · correlation of the neurons "
            f"{values.r:.3f} · component {first} comes first for feature {', '.join(map(str, values.served))}",
            f"Left: contributions of the neurons to feature {i} in the target and in the components that are on, "
            f"{n_on} in all; correlation {values.r:.2f}. Right: the largest attributions, "
            f"{attributions[0]:.3f} of component {first} and {attributions[1]:.3f} of component {second}. With feature "
            f"{i} at 1 the components that are on add {values.added:.2f} to its output, the target "
            f"{values.target_added:.2f}.",
        )
