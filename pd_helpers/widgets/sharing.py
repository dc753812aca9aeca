"""Labs on APD's components of a residual MLP: one feature's component, its ablation, and who shares it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import ipywidgets as w
import numpy as np
import torch
from torch import Generator

from pd_helpers import apd, experiments, plots
from pd_helpers.data import one_hot
from pd_helpers.gated import GatedNetwork
from pd_helpers.residual_mlp import ResidualMLP
from pd_helpers.runs import Run
from pd_helpers.widgets.lab import Lab, choice, whole

if TYPE_CHECKING:
    from pd_helpers.experiments import SingleFeature

N_DRAWS = 100
"""Random halves that the ablation lab has of each feature."""


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
        net = _decomposed_by_apd(run)
        self.run, self._A = run, experiments.feature_attributions(run)  # (n_features, C)
        C, n = self._A.shape[1], net.n_features
        layers = [
            [run.components.layers[f"mlps.{i}.{name}"].P for name in ("W_in", "W_out")] for i in range(len(net.mlps))
        ]
        self._read = torch.cat([P_in @ net.W_E for P_in, _ in layers], dim=1)  # (C, n_neurons, n_features)
        self._write = torch.cat([(net.W_U @ P_out).mT for _, P_out in layers], dim=1)
        self._target = experiments.contributions(run).target  # (n_features, n_neurons)
        self.feature = whole("feature", min(feature, n - 1), n - 1)
        self.n_on = choice("components on", [1, 2, 3, 5, 10, 30, C], 1)
        super().__init__([self.feature, self.n_on], 9.2, 3.4, 1, 2)
        neurons, ranks = np.arange(net.n_neurons), np.arange(self.SHOWN)
        left, right = self.axes[0]
        [self._theirs] = left.plot(neurons, 0.0 * neurons, "_", ms=8, mew=1.8, color=plots.color(0), label="target")
        self._mine = left.vlines(neurons, 0, 1, color=plots.color(1), lw=4, label="components that are on")
        for boundary in np.cumsum([mlp.W_in.out_features for mlp in net.mlps])[:-1]:
            left.axvline(boundary - 0.5, color="0.4", ls=":", lw=1)
        low, high = self._target.min().item(), self._target.max().item()
        left.set(xlabel="neuron", ylabel="contribution", ylim=(low - 0.08, 1.2 * high))
        left.axhline(0, color="0.2", lw=0.8)
        left.legend(frameon=False, fontsize=8, loc="upper right")
        self._bars = right.bar(ranks, 0.0 * ranks, color="0.8", edgecolor="0.3")
        right.set(xlabel="components, by attribution", ylabel="attribution", ylim=(0, 1.1 * self._A.max().item()))
        right.set_xticks(ranks)
        for ax in self.axes[0]:
            ax.set_title(" ", fontsize=10, y=1)
            ax.spines[["top", "right"]].set_visible(False)
        self.on_move((self.feature, self.n_on), self.draw)
        self.draw()

    @torch.no_grad()
    def draw(self) -> None:
        """Show this feature, with this many components."""
        i, n_on, net = self.feature.value, self.n_on.value, self.run.target
        order = self._A[i].argsort(descending=True)
        on = order[:n_on]
        mine = self._read[on, :, i].sum(dim=0) * self._write[on, :, i].sum(dim=0)  # (n_neurons,)
        x, mask = one_hot(net.n_features)[[i]], torch.zeros(1, len(order), dtype=torch.bool)
        mask[0, on] = True
        skip = net.W_U[i] @ net.W_E[:, i]
        adds, wanted = self.run.components(x, mask).output[0, i] - skip, net(x)[0, i] - skip
        self._theirs.set_ydata(self._target[i])
        self._mine.set_segments([[(k, 0.0), (k, height)] for k, height in enumerate(mine.tolist())])
        for rank, (bar, value) in enumerate(zip(self._bars, self._A[i][order].tolist(), strict=False)):
            bar.set_height(value)
            bar.set_facecolor(plots.color(1) if rank < n_on else "0.85")
        left, right = self.axes[0]
        right.set_xticklabels(order[: self.SHOWN].tolist())
        left.title.set_text(f"neurons of feature {i}")
        right.title.set_text("orange: on" if n_on > 1 else f"orange: on, component {order[0].item()}")
        r = torch.corrcoef(torch.stack([mine, self._target[i]]))[0, 1]
        served = ", ".join(map(str, (self._A.argmax(dim=1) == order[0]).nonzero().flatten().tolist()))
        self.refresh(
            f'{"one component" if n_on == 1 else f"{n_on} components"} on: <span class="pdh-adds">{adds:.3f}</span> '
            f"added to output {i} at 1, by the target {wanted:.3f} · correlation of the neurons {r:.3f} · component "
            f"{order[0].item()} comes first for feature {served}",
            f"Left: contributions of the neurons to feature {i} in the target and in those components, {n_on} "
            f"in all; correlation {r:.2f}. Right: the largest attributions, {self._A[i].max():.3f} of component "
            f"{order[0].item()} and {self._A[i][order[1]]:.3f} of component {order[1].item()}. With feature {i} at 1 "
            f"the components that are on add {adds:.2f} to its output, the target {wanted:.2f}.",
        )


class AblationLab(Lab):
    """Ablate a random half of all components, with or without the feature's own, and see the output move; instant.

    Left: what the MLPs add to each output. Right: the errors of all random halves, with the one that is shown.

    >>> AblationLab(pdh.shipped("apd/resid_mlp_1"), feature=42)
    """

    def __init__(self, run: Run, feature: int = 42):
        net = _decomposed_by_apd(run)
        self.run, n = run, net.n_features
        self._owner = experiments.feature_components(run)
        self.feature = whole("feature that is 1", min(feature, n - 1), n - 1)
        self.half = whole("random half", 0, N_DRAWS - 1)
        self.own = w.ToggleButtons(
            options=[("keep its component", "scrubbed"), ("ablate it too", "anti_scrubbed")],
            style={"button_width": "auto"},
        )
        super().__init__([self.feature, self.half, self.own], 9.2, 3.4, 1, 2)
        left, right = self.axes[0]
        places, self._bins = np.arange(n), np.geomspace(plots.LOWEST, 0.1, 50)
        [self._target] = left.plot(places, 0.0 * places, "o", ms=4, color=plots.color(0), label="target")
        [self._mine] = left.plot(places, 0.0 * places, "x", ms=5, mew=1.2, color="0.1", label="half ablated")
        [self._ring] = left.plot([], [], "o", ms=13, mfc="none", mec="0.1", mew=1.5, clip_on=False)
        left.set(xlabel="output", ylabel="MLP adds", ylim=(-0.35, 1.25), xlim=(-2, n + 1))
        left.legend(frameon=False, fontsize=8, loc="upper right", ncols=2)
        looks = {"scrubbed": ("component kept", plots.KEPT, "-"), "anti_scrubbed": ("ablated too", plots.ABLATED, "-.")}
        self._stairs = {
            name: right.stairs(np.zeros(49), self._bins, color=shade, ls=line, lw=1.8, label=label)
            for name, (label, shade, line) in looks.items()
        }
        self._here = right.axvline(1e-3, color="0.1", lw=1.5, label="this half")
        right.set(
            xscale="log", xlim=(1e-5, 0.1), ylim=(0, 1.05 * N_DRAWS), xlabel="MSE against the target", ylabel="halves"
        )
        right.minorticks_off()  # each would be drawn anew at every move
        right.legend(frameon=False, fontsize=8, loc="upper left")
        for ax in self.axes[0]:
            ax.set_title(" ", fontsize=10, y=1)
            ax.spines[["top", "right"]].set_visible(False)
        self.on_move([self.feature], self._ablate)
        self.on_move((self.half, self.own), self.draw)
        self._ablate()

    def _ablate(self) -> None:
        """Draw this feature's random halves anew."""
        i = self.feature.value
        draws = Generator().manual_seed(0)
        self._adds = experiments.ablate_halves(self.run, i, N_DRAWS, draws, owner=self._owner)
        self._errors = {name: (self._adds[name] - self._adds["target"]).square().mean(dim=1) for name in self._stairs}
        for name, stairs in self._stairs.items():
            stairs.set_data(np.histogram(self._errors[name].double().clamp(*self._bins[[0, -1]]), self._bins)[0])
        self.draw()

    def draw(self) -> None:
        """Show this half."""
        i, name, half = self.feature.value, self.own.value, self.half.value
        target, adds, errors = self._adds["target"][0], self._adds[name][half], self._errors[name]
        self._target.set_ydata(target)
        self._mine.set_ydata(adds)
        self._ring.set_data([i], [adds[i]])
        self._here.set_xdata([errors[half].item()] * 2)
        left, right = self.axes[0]
        left.title.set_text(f"feature {i} is 1, random half {half} is off")
        right.title.set_text(f"all {N_DRAWS} halves")
        means = {name: errors.mean() for name, errors in self._errors.items()}
        kept = "kept" if name == "scrubbed" else "ablated too"
        self.refresh(
            f'output {i}: <span class="pdh-adds">{adds[i]:.3f}</span>, target {target[i]:.3f} · error of this half '
            f"{errors[half]:.1e} · mean over all halves {means['scrubbed']:.1e} with its component kept, "
            f"{means['anti_scrubbed']:.1e} with it ablated too",
            f"With feature {i} at 1 and random half {half} off, its own component {kept}, the MLPs add {adds[i]:.2f} "
            f"to output {i} where the target's add {target[i]:.2f}. Over {N_DRAWS} random halves the mean error is "
            f"{means['scrubbed']:.1e} with the component kept and {means['anti_scrubbed']:.1e} with it ablated too.",
        )


class SharingLab(Lab):
    """Move over runs that differ in one setting; see which features one component serves, and who shares it; instant.

    >>> runs = {k: pdh.shipped("apd/resid_mlp_1_rank4", f"top_k{k}") for k in (1, 2)}
    >>> found = {k: experiments.single_feature(run, 20_000, torch.Generator()) for k, run in runs.items()}
    >>> SharingLab(runs, found, "top-k per input")
    """

    def __init__(
        self, runs: "Mapping[float | str, Run]", found: "Mapping[float | str, SingleFeature]", setting: str, start=None
    ):
        if not runs or set(runs) != set(found):
            raise ValueError("runs and found must have the same settings, at least one")
        nets = [_decomposed_by_apd(run) for run in runs.values()]
        self.runs, self.found = dict(runs), dict(found)
        self._A = {key: experiments.feature_attributions(run) for key, run in runs.items()}
        self.setting = choice(setting, list(runs), next(iter(runs)) if start is None else start)
        super().__init__([self.setting], 9.2, 3.3, 1, 3)
        top = plots.highest_error(*found.values())
        one, batch, shared = self.axes[0]
        self._one = plots.FeatureErrors(one, nets[0].n_features, "one component", top)
        self._batch = plots.FeatureErrors(batch, nets[0].n_features, "batch top-k", top)
        batch.set_ylabel("")
        self._shared = plots.SharedComponents(shared, 1.1 * max(A.max().item() for A in self._A.values()))
        for ax, title in zip(
            self.axes[0], ("only the first component", "batch top-k", "one feature or two?"), strict=True
        ):
            ax.set_title(title, fontsize=10, y=1)
        self.on_move([self.setting], self.draw)
        self.draw()

    def draw(self) -> None:
        """Show the run at the slider's setting."""
        key = self.setting.value
        found, A = self.found[key], self._A[key]
        owner = A.argmax(dim=1)
        shared, first_two = experiments.doubled(owner), A.topk(2, dim=1).values
        n_own = len(owner) - sum(map(len, shared.values()))
        split = int((first_two[:, 1] > 0.3 * first_two[:, 0]).sum())
        self._one.move(found.label_error, found.top_1_label_error)
        self._batch.move(found.label_error, found.batch_top_k_label_error)
        self._shared.move(A)
        pairs = "; ".join(" and ".join(map(str, features)) for features in shared.values()) or "none"
        errors = {name: getattr(found, name).nanmean() for name in ("top_1", "batch_top_k")}
        told = f"{self.setting.description} {key}"
        self.refresh(
            f'<b>components that come first for two features: <span class="pdh-doubled">{len(shared)}</span></b> '
            f"({pairs}) · "
            f"{n_own} features have one of their own · {split} are split: their second attribution is above 0.3 of the "
            f"first · error against the target {errors['top_1']:.1e} with one component, {errors['batch_top_k']:.1e} "
            "with the batch top-k",
            f"At {told}: errors of each feature against the labels, with only the component of the largest attribution "
            f"and with the batch top-k, over those of the target; and each component's two largest attributions. "
            f"Components that come first for two features: {len(shared)}; features with one of their own: {n_own}; "
            f"features split over two: {split}.",
        )


def _decomposed_by_apd(run: Run) -> ResidualMLP:
    net = run.target
    if not isinstance(net, ResidualMLP) or isinstance(net, GatedNetwork) or not isinstance(run.config, apd.APDConfig):
        raise ValueError("run must be an APD run on a ResidualMLP; pdh.shipped('apd/resid_mlp_1') is")
    return net
