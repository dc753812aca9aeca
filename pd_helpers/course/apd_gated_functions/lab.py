"""A lab on the hand-written network: how much APD's result depends on the seed and on a coefficient."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers import plots
from pd_helpers.analysis import gated_functions
from pd_helpers.course.apd_gated_functions.plots import gated_outputs
from pd_helpers.course.kit.lab import Description, Lab, choice, whole, wipe
from pd_helpers.runs.api import prepare
from pd_helpers.runs.sweeps import restored

if TYPE_CHECKING:
    import pandas


class GatedValues(NamedTuple):
    """One decomposition, one component at a time."""

    simplicity_coeff: float
    seed: int
    alone: gated_functions.Alone
    """Outputs and errors of every function with every component alone."""

    @property
    def errors(self) -> Float[Tensor, " n_functions"]:
        """Relative error of each function with the component that serves it."""
        served_by = self.alone.served_by
        return self.alone.errors[torch.arange(len(served_by)), served_by]

    @property
    def n_served(self) -> int:
        """Functions whose error is at most `gated_functions.SERVED`."""
        return int((self.errors <= gated_functions.SERVED).sum())


class GatedLab(Lab):
    """Decompositions of hand-written networks by APD: one for each seed, at several simplicity coefficients.

    Left: the functions, and the output of the component that serves each, alone. Right: the relative error of every
    function with every component alone.

    >>> GatedLab(pandas.concat([pdh.shipped_sweep("apd/gated", v) for v in ("seeds", "coefficients")]))
    """

    def __init__(self, sweep: "pandas.DataFrame"):
        lacks = [column for column in ("seed", "kept") if column not in getattr(sweep, "columns", ())]
        if lacks:
            raise ValueError(
                f"sweep must be a table of pdh.sweep over seeds that keeps end states, but lacks {', '.join(lacks)}; "
                "pdh.shipped_sweep('apd/gated', 'seeds') works"
            )
        if not len(sweep) or not all(isinstance(kept, Mapping) for kept in sweep["kept"]):
            raise ValueError(
                "sweep must have kept the end state of every run, of at least one (keep=pdh.end_state); "
                "pdh.shipped_sweep('apd/gated', 'seeds') works"
            )
        usual = prepare("apd/gated", 0, device="cpu", show_progress=False).config.simplicity_coeff
        table = sweep.assign(simplicity_coeff=sweep.get("simplicity_coeff", usual)).fillna({"simplicity_coeff": usual})
        self._rows = {(row["simplicity_coeff"], row["seed"]): row for _, row in table.iterrows()}
        coefficients = sorted({coefficient for coefficient, _ in self._rows})
        for coefficient in coefficients:
            seeds = sorted(seed for other, seed in self._rows if other == coefficient)
            if seeds != list(range(len(seeds))):
                raise ValueError(
                    f"sweep must have the seeds 0, 1, 2 … at every λ_S, but has {seeds} at {coefficient:g}"
                )
        first = usual if usual in coefficients else coefficients[0]
        self.simplicity_coeff = choice("simplicity λ_S", coefficients, first)
        self.seed = whole("seed", 0, self._last_seed())
        super().__init__([self.simplicity_coeff, self.seed], 9.0, 3.7, 1, 2)
        left, right = self.axes[0]
        left.yaxis.set_major_formatter("{x:.2f}")  # of one width, so that its label has room in all pictures
        left.set_title("functions (broad), one component alone (dashed)", fontsize=10, y=1)
        right.set_title("relative error, that component alone", fontsize=10)
        self.on_move([self.simplicity_coeff], lambda: self.offer(self.seed, self._last_seed()))
        self.on_move([self.seed], self.update)
        self.update()

    def _last_seed(self) -> int:
        """The largest seed at the chosen coefficient."""
        return max(seed for coefficient, seed in self._rows if coefficient == self.simplicity_coeff.value)

    def compute(self) -> GatedValues:
        """Restore the decomposition that the sliders choose, and run every component alone."""
        coefficient, seed = self.simplicity_coeff.value, self.seed.value
        run = restored("apd/gated", self._rows[coefficient, seed])
        return GatedValues(coefficient, seed, gated_functions.alone(run))

    def draw(self, values: GatedValues) -> None:
        """Draw the functions and the table of errors."""
        left, right = self.axes[0]
        wipe(left)
        wipe(right)
        alone = values.alone
        outputs = alone.outputs[torch.arange(len(alone.target)), alone.served_by]
        gated_outputs(left, alone.x, alone.target, outputs)
        plots.matrix(right, alone.errors.clamp(max=9.99).round(decimals=2), limit=1)
        right.set(xlabel="component", ylabel="function")

    def describe(self, values: GatedValues) -> Description:
        """How many functions are served, and their errors."""
        errors, n_served = values.errors, values.n_served
        listed = ", ".join(f"{error:.3f}" for error in errors)
        return Description(
            f'<b>functions served: <span class="pdh-served">{n_served}</span> of {len(errors)}</b> · relative errors '
            f'<span class="pdh-errors">{listed}</span>',
            f"Seed {values.seed}, λ_S = {values.simplicity_coeff:g}: the functions, and for each the output of its "
            f"component alone; and the relative error of each function with each component. {n_served} of "
            f"{len(errors)} served; errors {listed}.",
        )
