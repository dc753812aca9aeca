"""Labs on APD's components of a residual MLP that two notebooks share, and what other labs on residual MLPs draw with.

`AblationLab` ablates random halves of the components; `SharingLab` moves over runs and shows which features share a
component.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Generator, Tensor

from pd_helpers import plots
from pd_helpers.analysis import neuron_contributions, scrubbing
from pd_helpers.analysis.scrubbing import SingleFeature
from pd_helpers.course.kit.lab import Description, Lab, buttons, choice, open_frames, reserve_titles, whole
from pd_helpers.runs.run import Run
from pd_helpers.targets.gated_functions import GatedNetwork
from pd_helpers.targets.residual_mlp import ResidualMLP

N_DRAWS = 100
"""Random halves that the ablation lab draws for each feature."""


class Stems:
    """Vertical lines from zero, one for each neuron, whose heights can be moved."""

    def __init__(self, ax: Axes, label: str):
        self.lines = ax.vlines([0], 0, 1, color=plots.color(1), lw=4, label=label)

    def move(self, heights: Float[Tensor, " n_neurons"]) -> None:
        """Show these heights."""
        self.lines.set_segments([[(k, 0.0), (k, height)] for k, height in enumerate(heights.tolist())])


def mark_layers(ax: Axes, net: ResidualMLP) -> None:
    """Draw a dotted line between the neurons of each layer and those of the next."""
    for boundary in np.cumsum([mlp.W_in.out_features for mlp in net.mlps])[:-1]:
        ax.axvline(boundary - 0.5, color="0.4", ls=":", lw=1)


def decomposed_by_apd(run: Run) -> ResidualMLP:
    """The residual MLP of an APD run; ValueError for any other run."""
    net = run.target
    if not isinstance(net, ResidualMLP) or isinstance(net, GatedNetwork) or run.method.name != "apd":
        raise ValueError("run must be an APD run on a ResidualMLP; pdh.shipped('apd/resid_mlp_1') is")
    return net


class AblationValues(NamedTuple):
    """What the MLPs add to the output when one feature is 1 and a random half of the components is off."""

    feature: int
    half: int
    """Number of the random half that is shown."""
    ablation: str
    """`scrubbed` where the feature's own component stays on, `anti_scrubbed` where it is off too."""
    target: Float[Tensor, " n_features"]
    """What the target's MLPs add."""
    added: Float[Tensor, " n_features"]
    """What they add with this half off."""
    errors: dict[str, Float[Tensor, " N_DRAWS"]]
    """Ablation → mean squared error of each random half against the target."""

    @property
    def error(self) -> float:
        """Mean squared error of the half that is shown."""
        return self.errors[self.ablation][self.half].item()


class AblationLab(Lab):
    """Ablate a random half of all components, with or without the feature's own, and see the output move; instant.

    Left: what the MLPs add to each output. Right: the errors of all random halves, with the one that is shown.

    >>> AblationLab(pdh.shipped("apd/resid_mlp_1"), feature=42)
    """

    def __init__(self, run: Run, feature: int = 42):
        net = decomposed_by_apd(run)
        self.run, n = run, net.n_features
        self._owner = neuron_contributions.feature_components(run)
        self._halves = lru_cache(maxsize=1)(self._ablate_halves)
        self.feature = whole("feature that is 1", min(feature, n - 1), n - 1)
        self.half = whole("random half", 0, N_DRAWS - 1)
        self.ablation = buttons([("keep its component", "scrubbed"), ("ablate it too", "anti_scrubbed")])
        controls = [self.feature, self.half, self.ablation]
        super().__init__(controls, 9.2, 3.4, 1, 2)
        left, right = self.axes[0]
        places, self._bins = np.arange(n), np.geomspace(plots.LOWEST, 0.1, 50)
        [self._target] = left.plot(places, 0.0 * places, "o", ms=4, color=plots.color(0), label="target")
        [self._added] = left.plot(places, 0.0 * places, "x", ms=5, mew=1.2, color="0.1", label="half ablated")
        [self._ring] = left.plot([], [], "o", ms=13, mfc="none", mec="0.1", mew=1.5, clip_on=False)
        left.set(xlabel="output", ylabel="MLP adds", ylim=(-0.35, 1.25), xlim=(-2, n + 1))
        left.legend(frameon=False, fontsize=8, loc="upper right", ncols=2)
        looks = {"scrubbed": ("component kept", plots.KEPT, "-"), "anti_scrubbed": ("ablated too", plots.ABLATED, "-.")}
        self._histograms = {
            ablation: right.stairs(np.zeros(49), self._bins, color=shade, ls=line, lw=1.8, label=label)
            for ablation, (label, shade, line) in looks.items()
        }
        self._error = right.axvline(1e-3, color="0.1", lw=1.5, label="this half")
        right.set(
            xscale="log", xlim=(1e-5, 0.1), ylim=(0, 1.05 * N_DRAWS), xlabel="MSE against the target", ylabel="halves"
        )
        right.minorticks_off()  # each would be drawn anew at every move
        right.legend(frameon=False, fontsize=8, loc="upper left")
        reserve_titles(self.axes[0])
        open_frames(self.axes[0])
        self.on_move(controls, self.update)
        self.update()

    def _ablate_halves(self, feature: int) -> dict[str, Tensor]:
        """What the MLPs add with each random half off; drawn from the same seed for every feature."""
        return scrubbing.ablate_halves(self.run, feature, N_DRAWS, Generator().manual_seed(0), owner=self._owner)

    def compute(self) -> AblationValues:
        """What the MLPs add under the half and the ablation that are chosen, and the errors of all halves."""
        feature, half, ablation = self.feature.value, self.half.value, self.ablation.value
        added = self._halves(feature)
        errors = {name: (added[name] - added["target"]).square().mean(dim=1) for name in self._histograms}
        return AblationValues(feature, half, ablation, added["target"][0], added[ablation][half], errors)

    def draw(self, values: AblationValues) -> None:
        """Move the points, the histograms and the line of this half's error."""
        self._target.set_ydata(values.target)
        self._added.set_ydata(values.added)
        self._ring.set_data([values.feature], [values.added[values.feature]])
        for ablation, histogram in self._histograms.items():
            within = values.errors[ablation].double().clamp(*self._bins[[0, -1]])
            histogram.set_data(np.histogram(within, self._bins)[0])
        self._error.set_xdata([values.error] * 2)
        left, right = self.axes[0]
        left.title.set_text(f"feature {values.feature} is 1, random half {values.half} is off")
        right.title.set_text(f"all {N_DRAWS} halves")

    def describe(self, values: AblationValues) -> Description:
        """The feature's own output, and mean errors."""
        i, added, target = values.feature, values.added[values.feature], values.target[values.feature]
        means = {ablation: errors.mean() for ablation, errors in values.errors.items()}
        own = "kept" if values.ablation == "scrubbed" else "ablated too"
        return Description(
            f'output {i}: <span class="pdh-adds">{added:.3f}</span>, target {target:.3f} · error of this half '
            f"{values.error:.1e} · mean over all halves {means['scrubbed']:.1e} with its component kept, "
            f"{means['anti_scrubbed']:.1e} with it ablated too",
            f"With feature {i} at 1, random half {values.half} off and its own component {own}, the MLPs add "
            f"{added:.2f} to output {i}, where the target's add {target:.2f}. Over {N_DRAWS} random halves the mean "
            f"error is {means['scrubbed']:.1e} with the component kept and {means['anti_scrubbed']:.1e} with it "
            "ablated too.",
        )


class SharingValues(NamedTuple):
    """Errors and attributions of the run that is shown."""

    setting: float | str
    errors: SingleFeature
    attributions: Float[Tensor, "n_features C"]
    shared: dict[int, list[int]]
    """Component → its features, of those components that come first for two features or more."""
    n_own: int
    """Features with a component that comes first for them alone."""
    n_split: int
    """Features whose second largest attribution is above 0.3 of the largest."""


class SharingLab(Lab):
    """Move over runs that differ in one setting; see which features one component serves, and who shares it; instant.

    >>> runs = {k: pdh.shipped("apd/resid_mlp_1_rank4", f"top_k{k}") for k in (1, 2)}
    >>> errors = {k: scrubbing.single_feature(run, 20_000, torch.Generator()) for k, run in runs.items()}
    >>> SharingLab(runs, errors, "top-k per input")

    Args:
        runs: setting → run.
        errors: setting → what `scrubbing.single_feature` measured of that run.
        setting: the name of the setting.
        value: the setting that is shown first; None means the first one.
    """

    def __init__(
        self,
        runs: Mapping[float | str, Run],
        errors: Mapping[float | str, SingleFeature],
        setting: str,
        value: float | str | None = None,
    ):
        if not runs or set(runs) != set(errors):
            raise ValueError("runs and errors must have the same settings as keys, and at least one")
        nets = [decomposed_by_apd(run) for run in runs.values()]
        self.runs, self.errors = dict(runs), dict(errors)
        self._attributions = {key: neuron_contributions.feature_attributions(run) for key, run in runs.items()}
        self.setting = choice(setting, list(runs), next(iter(runs)) if value is None else value)
        super().__init__([self.setting], 9.2, 3.3, 1, 3)
        top = plots.highest_error(*errors.values())
        one, batch, shared = self.axes[0]
        self._one = plots.FeatureErrors(one, nets[0].n_features, "one component", top)
        self._batch = plots.FeatureErrors(batch, nets[0].n_features, "batch top-k", top)
        batch.set_ylabel("")
        self._shared = plots.SharedComponents(shared, 1.1 * max(A.max().item() for A in self._attributions.values()))
        titles = "only the first component", "batch top-k", "one feature or two?"
        for ax, title in zip(self.axes[0], titles, strict=True):
            ax.set_title(title, fontsize=10, y=1)
        self.on_move([self.setting], self.update)
        self.update()

    def compute(self) -> SharingValues:
        """Look up the run at the slider's setting, and count who shares a component."""
        key = self.setting.value
        A = self._attributions[key]
        owner, largest = A.argmax(dim=1), A.topk(2, dim=1).values
        shared = neuron_contributions.doubled(owner)
        n_split = int((largest[:, 1] > 0.3 * largest[:, 0]).sum())
        return SharingValues(key, self.errors[key], A, shared, len(owner) - sum(map(len, shared.values())), n_split)

    def draw(self, values: SharingValues) -> None:
        """Move the points of all three panels."""
        self._one.move(values.errors.label_error, values.errors.top_1_label_error)
        self._batch.move(values.errors.label_error, values.errors.batch_top_k_label_error)
        self._shared.move(values.attributions)

    def describe(self, values: SharingValues) -> Description:
        """How many components are shared, and the mean errors."""
        pairs = "; ".join(" and ".join(map(str, features)) for features in values.shared.values()) or "none"
        one, batch = values.errors.top_1.nanmean(), values.errors.batch_top_k.nanmean()
        return Description(
            f'<b>components that come first for two features: <span class="pdh-doubled">{len(values.shared)}</span>'
            f"</b> ({pairs}) · {values.n_own} features have one of their own · {values.n_split} are split: their "
            f"second attribution is above 0.3 of the first · error against the target {one:.1e} with one component, "
            f"{batch:.1e} with the batch top-k",
            f"At {self.setting.description} {values.setting}: errors of each feature against the labels, with only the "
            "component of the largest attribution and with the batch top-k, over those of the target; and each "
            f"component's two largest attributions. Components that come first for two features: {len(values.shared)}; "
            f"features with one of their own: {values.n_own}; features split over two: {values.n_split}.",
        )
