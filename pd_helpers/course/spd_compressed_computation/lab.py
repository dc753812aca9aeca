"""A lab on the importance coefficient β3: one slider over runs that were trained beforehand."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pd_helpers import plots
from pd_helpers.analysis import importance_matrices, metrics
from pd_helpers.course.kit.lab import Description, Lab, blank_image, choice, reserve_titles
from pd_helpers.runs.run import Run
from pd_helpers.targets.residual_mlp import ResidualMLP


class ImportanceCoefficientValues(NamedTuple):
    """One run; its uses are `mlps.0.W_in` and `mlps.0.W_out`."""

    coefficient: float
    """Importance coefficient β3."""
    g: dict[str, Float[Tensor, "n_features C"]]
    """Use → importances for each feature alone at 0.75, subcomponents in the order that shows most."""
    recon: float
    """Mean squared error under random masks."""

    @property
    def n_alive(self) -> dict[str, int]:
        """Use → subcomponents that are important for some feature."""
        return {use: int(metrics.alive(g).sum()) for use, g in self.g.items()}

    @property
    def l0(self) -> dict[str, float]:
        """Use → important subcomponents for one feature, mean over features."""
        return {use: metrics.l0(g) for use, g in self.g.items()}


class ImportanceCoefficientLab(Lab):
    """Move β3 over runs on one residual MLP: importance matrices, alive counts and the error follow; instant.

    Left and middle: importances in W_in and W_out for each feature alone at 0.75, subcomponents in the order that shows
    most. Right: alive subcomponents and the error under random masks, at every β3.

    >>> runs = {1e-6: pdh.shipped("spd/resid_mlp_1", "beta1e-06"), 1e-5: pdh.shipped("spd/resid_mlp_1")}
    >>> ImportanceCoefficientLab(runs)

    Args:
        runs: β3 → run.
        value: the β3 that is shown first; None means the smallest.
    """

    def __init__(self, runs: Mapping[float, Run], value: float | None = None):
        if not runs:
            raise ValueError("runs must hold at least one run; {1e-5: pdh.shipped('spd/resid_mlp_1')} works")
        for run in runs.values():
            if not isinstance(run.target, ResidualMLP) or len(run.target.mlps) != 1 or run.method.name != "spd":
                raise ValueError(
                    "runs must be SPD runs on a residual MLP of one layer; pdh.shipped('spd/resid_mlp_1') is"
                )
            if "recon" not in run.metrics:
                raise ValueError(
                    "runs must be trained, but one has no metrics yet; pdh.shipped('spd/resid_mlp_1') works"
                )
        self.runs = dict(sorted(runs.items()))
        self._values = {beta: _values_of(run, beta) for beta, run in self.runs.items()}
        betas, every = list(self.runs), list(self._values.values())
        self.coefficient = choice("importance coefficient β₃", betas, betas[0] if value is None else value)
        super().__init__([self.coefficient], 9.2, 3.3, 1, 3)
        *images, counts = self.axes[0]
        self._images = [blank_image(ax, *every[0].g[use].shape) for ax, use in zip(images, every[0].g, strict=True)]
        for ax in images:
            ax.set(xlabel="subcomponent", ylabel="input feature")
        errors = counts.twinx()
        for k, use in enumerate(every[0].g):
            look = {"color": plots.color(k), "marker": "os"[k], "ls": ["-", "--"][k]}
            counts.plot(betas, [values.n_alive[use] for values in every], label=f"alive in {_name(use)}", **look)
        recon = [values.recon for values in every]
        errors.plot(betas, recon, ":", marker="^", color="0.3", label="error")
        counts.set(xscale="log", xlabel="β₃", ylabel="alive subcomponents", ylim=(0, 150))
        errors.set(yscale="log", ylabel="error under random masks", ylim=(min(recon) / 2, None))
        self._bar = counts.axvline(betas[0], color="0.75", lw=6, zorder=0)
        lines = [*counts.get_lines()[:2], *errors.get_lines()]
        counts.legend(lines, [line.get_label() for line in lines], frameon=False, fontsize=8, loc="upper left")
        reserve_titles(self.axes[0])
        self.on_move([self.coefficient], self.update)
        self.update()

    def compute(self) -> ImportanceCoefficientValues:
        """Look up the run at the slider's β3."""
        return self._values[self.coefficient.value]

    def draw(self, values: ImportanceCoefficientValues) -> None:
        """Show the run's importance matrices, and move the bar in the right panel."""
        for ax, image, (use, g) in zip(self.axes[0], self._images, values.g.items(), strict=False):
            image.set_data(np.asarray(g))
            ax.title.set_text(f"{_name(use)}: {values.n_alive[use]} alive, {values.l0[use]:.1f} per feature")
        self._bar.set_xdata([values.coefficient] * 2)

    def describe(self, values: ImportanceCoefficientValues) -> Description:
        """Alive subcomponents and the error."""
        readout = " · ".join(
            f'alive in {_name(use)}: <span class="pdh-{_name(use)}">{n}</span>' for use, n in values.n_alive.items()
        )
        alt = " and ".join(
            f"in {_name(use)} {n} subcomponents are alive, {values.l0[use]:.1f} for each feature"
            for use, n in values.n_alive.items()
        )
        return Description(
            f'{readout} · error under random masks <span class="pdh-recon">{values.recon:.1e}</span>',
            f"At β₃ = {values.coefficient:g}, {alt}; the error under random masks is {values.recon:.1e}.",
        )


def _values_of(run: Run, beta: float) -> ImportanceCoefficientValues:
    importances = importance_matrices.importance_matrix(run)
    g = {use: matrix[:, plots.readable_order(matrix)] for use, matrix in importances.items()}
    return ImportanceCoefficientValues(beta, g, run.metrics["recon"])


def _name(use: str) -> str:
    """The matrix that a use belongs to: `W_in` of `mlps.0.W_in`."""
    return use.split(".")[-1]
