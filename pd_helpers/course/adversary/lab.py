"""A lab on attacks: choose a method, an adversary, its steps and its strength, and see what its masks do."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from matplotlib.ticker import NullLocator
from torch import Tensor

from pd_helpers import plots
from pd_helpers.analysis.attacks import Attack, attack, masks_of
from pd_helpers.core.config import shown
from pd_helpers.core.training import progress
from pd_helpers.course.adversary.ideas import inputs
from pd_helpers.course.kit.lab import Description, Lab, buttons, choice, open_frames, reserve_titles, slider, whole
from pd_helpers.course.kit.methods import METHODS
from pd_helpers.runs.run import Run
from pd_helpers.targets.tms import TMS

STEPS = (0, 1, 2, 5, 10, 20, 40, 80)
"""Steps of the attacks that are made when the lab begins."""
SCOPES = ("shared", "per input")
N_INPUTS = 200
"""Inputs that are attacked together, besides those with one feature on."""


class AttackValues(NamedTuple):
    """What the worst masks that were found do, at one input."""

    method: str
    scope: str
    steps: int
    strength: float
    feature: int
    g: Float[Tensor, "uses n"]
    """Importances at this input, the most important first in each use."""
    masks: Float[Tensor, "uses n"]
    """The attack's masks in the same order."""
    output: Float[Tensor, " n_features"]
    target_output: Float[Tensor, " n_features"]
    error: float
    """Mean squared error over all inputs that are attacked."""


class AttackLab(Lab):
    """Attack decompositions of one toy model; all attacks are made when the lab begins, so that each move is instant.

    With strength s a source is 1 - s (1 - r) in place of r: at 0 nothing is taken away, and at 1 the attack is what
    was found. Left: importances of all pieces for the input with one feature on, and the masks that the adversary
    chooses. Middle: the output. Right: the error over all inputs against the number of steps, of all methods.

    >>> AttackLab([pdh.shipped(f"{method}/tms_5-2") for method in ("apd", "spd", "vpd")])
    """

    VALUE = 0.75
    """Value of the feature that is on."""
    SHOWN = 8
    """Pieces of each use that are drawn, the most important ones."""

    def __init__(self, runs: Sequence[Run], show_progress: bool = True):
        runs = list(runs)
        for run in runs:
            if not isinstance(run.target, TMS) or run.target.n_features > 8:
                raise ValueError(
                    "runs must be decompositions of toy models with at most 8 features, but one is "
                    f"{shown(run.name)}; [pdh.shipped('spd/tms_5-2')] works"
                )
        if not runs or len({run.method.name for run in runs}) < len(runs):
            raise ValueError(
                "runs must be at least one run, each by another method; [pdh.shipped('spd/tms_5-2')] works"
            )
        self.runs = {run.method.name: run for run in runs}
        n = runs[0].target.n_features
        self.x = torch.cat([self.VALUE * torch.eye(n), inputs(runs[0], N_INPUTS).cpu()])
        every = [(name, scope, steps) for name in self.runs for scope in SCOPES for steps in STEPS]
        self._found: dict[tuple[str, str, int], Attack] = {
            (name, scope, steps): attack(self.runs[name], self.x, steps, scope, show_progress=False)
            for name, scope, steps in progress(every, total=len(every), description="attacks", show=show_progress)
        }
        self._g = {name: run.importances(self.x) for name, run in self.runs.items()}
        self.method = buttons([(name.upper(), name) for name in self.runs])
        self.scope = buttons([(scope, scope) for scope in SCOPES])
        self.steps = choice("steps of the attack", STEPS, 20)
        self.strength = slider("strength", 1.0, 0.0, 1.0, 0.05, 2)
        self.feature = whole("feature that is on", 0, n - 1)
        controls = [self.method, self.scope, self.steps, self.strength, self.feature]
        super().__init__(controls, 9.4, 3.5, 1, 3)
        left, middle, right = self.axes[0]
        uses = list(next(iter(self._g.values())))
        places = [i * (self.SHOWN + 1) + c for i in range(len(uses)) for c in range(self.SHOWN)]
        self._bars = left.bar(places, [0.0] * len(places), color=plots.color(3), alpha=0.6)
        [self._dots] = left.plot(places, [0.0] * len(places), "o", ms=5, color="0.1")
        left.set(
            ylim=(0, 1.1), yticks=[0, 1], ylabel="importance (dot), mask (bar)", xlabel="the most important pieces"
        )
        left.set_xticks([i * (self.SHOWN + 1) + (self.SHOWN - 1) / 2 for i in range(len(uses))], uses)
        self._outputs = middle.bar(range(n), [0.0] * n, color=plots.color(3), alpha=0.6)
        [self._target] = middle.plot(range(n), [0.0] * n, "_", ms=24, mew=2.5, color="0.1")
        middle.set(xlabel="output", ylim=(-0.02, 1), yticks=[0, 0.5, 1], xticks=range(n))
        middle.set_ylabel("target (line), under attack (bar)")
        self._curves = {}
        for name in self.runs:
            i, marker, label = METHODS[name]
            places = range(len(STEPS))
            [self._curves[name]] = right.plot(
                places, [1.0] * len(STEPS), marker, ls="-", color=plots.color(i), label=label
            )
        [self._here] = right.plot([0], [1.0], "o", ms=13, mfc="none", mew=2, color="0.1")
        errors = [found.error for found in self._found.values()]
        right.set(yscale="log", ylim=(min(errors) / 2, 2 * max(errors)), xlabel="steps of the attack")
        right.yaxis.set_minor_locator(NullLocator())
        right.set_xticks(range(0, len(STEPS), 2), map(str, STEPS[::2]))
        right.legend(frameon=False, fontsize=8, loc="best")
        reserve_titles(self.axes[0])
        open_frames(self.axes[0])
        self.on_move(controls, self.update)
        self.update()

    @torch.no_grad()
    def compute(self) -> AttackValues:
        """Weaken the sources that were found, and run the network under their masks."""
        name, scope, steps, s = self.method.value, self.scope.value, self.steps.value, self.strength.value
        run, g, i = self.runs[name], self._g[name], self.feature.value
        weakened = {key: 1 - s * (1 - r) for key, r in self._found[name, scope, steps].sources.items()}
        masks = masks_of(run, g, weakened)
        output, target = run.components(self.x, masks).output, run.target(self.x)
        pieces, masked = [], []
        for use, values in g.items():
            order = values[i].argsort(descending=True)[: self.SHOWN]
            filled = torch.zeros(2, self.SHOWN)
            filled[:, : len(order)] = torch.stack([values[i, order], masks[use][i, order]])
            pieces.append(filled[0])
            masked.append(filled[1])
        error = (output - target).square().mean().item()
        return AttackValues(
            name, scope, steps, s, i, torch.stack(pieces), torch.stack(masked), output[i], target[i], error
        )

    def draw(self, values: AttackValues) -> None:
        """Move bars, dots and curves."""
        for bar, mask in zip(self._bars, values.masks.flatten(), strict=True):
            bar.set_height(float(mask))
        self._dots.set_ydata(values.g.flatten())
        for bar, output in zip(self._outputs, values.output, strict=True):
            bar.set_height(float(output))
        self._target.set_ydata(values.target_output)
        for name, curve in self._curves.items():
            curve.set_ydata([self._found[name, values.scope, n].error for n in STEPS])
        low, high = self.axes[0, 2].get_ylim()
        self._here.set_data([STEPS.index(values.steps)], [min(max(values.error, low), high)])
        left, middle, right = self.axes[0]
        left.title.set_text(f"{values.method.upper()}: masks, feature {values.feature} on")
        middle.title.set_text(f"output, feature {values.feature} at {self.VALUE:g}")
        right.title.set_text(f"error over {len(self.x)} inputs, {values.scope}")

    def describe(self, values: AttackValues) -> Description:
        """The error, and the output that is furthest off."""
        off = (values.output - values.target_output).abs()
        worst = int(off.argmax())
        found, wanted = values.output[worst].item(), values.target_output[worst].item()
        adversary = "one set of masks for all inputs" if values.scope == "shared" else "masks for each input"
        return Description(
            f'<b>mean squared error <span class="pdh-error">{values.error:.2e}</span></b> · {adversary}, '
            f"{values.steps} steps, strength {values.strength:.2f} · output {worst} is furthest off: "
            f'<span class="pdh-output">{found:.3f}</span> for {wanted:.3f}',
            f"{values.method.upper()} under an attack with {adversary}, {values.steps} steps, strength "
            f"{values.strength:.2f}: mean squared error {values.error:.2e}. With feature {values.feature} on, output "
            f"{worst} is furthest off, {found:.3f} for {wanted:.3f}. Left: importances and masks; middle: outputs; "
            "right: the error of all methods against the number of steps.",
        )
