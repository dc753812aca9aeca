"""A lab on the hand-written network: how much APD's result depends on the seed and on a coefficient."""

from typing import TYPE_CHECKING

import torch

from pd_helpers import experiments, plots
from pd_helpers.runs import prepare
from pd_helpers.sweeps import restored
from pd_helpers.widgets.lab import Lab, choice, whole, wipe

if TYPE_CHECKING:
    import pandas


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
        usual = prepare("apd/gated", 0, device="cpu", show_progress=False).config.simplicity_coeff
        table = sweep.assign(simplicity_coeff=sweep.get("simplicity_coeff", usual)).fillna({"simplicity_coeff": usual})
        self._rows = {(row["simplicity_coeff"], row["seed"]): row for _, row in table.iterrows()}
        coefficients = sorted({coefficient for coefficient, _ in self._rows})
        for coefficient in coefficients:
            seeds = sorted(seed for other, seed in self._rows if other == coefficient)
            if seeds != list(range(len(seeds))):
                raise ValueError(f"sweep must have seeds 0, 1, 2 … at every λ_S, but has {seeds} at {coefficient:g}")
        self.simplicity_coeff = choice(
            "simplicity λ_S", coefficients, usual if usual in coefficients else coefficients[0]
        )
        self.seed = whole("seed", 0, self._last_seed())
        super().__init__([self.simplicity_coeff, self.seed], 9.0, 3.7, 1, 2)
        self.axes[0, 0].yaxis.set_major_formatter("{x:.2f}")  # of one width, so that its label has room in all pictures
        self.draw()
        self.on_move([self.simplicity_coeff], self._offer_seeds)
        self.on_move([self.seed], self.draw)

    def _last_seed(self) -> int:
        return max(seed for coefficient, seed in self._rows if coefficient == self.simplicity_coeff.value)

    def _offer_seeds(self) -> None:
        before = self.seed.value
        self.seed.max = self._last_seed()
        if self.seed.value == before:  # a seed that had to follow has drawn the picture
            self.draw()

    def draw(self) -> None:
        """Show the decomposition that the sliders are at."""
        coefficient, seed = self.simplicity_coeff.value, self.seed.value
        run = restored("apd/gated", self._rows[coefficient, seed])
        alone = experiments.alone(run)
        chosen, functions = alone.served_by, torch.arange(len(alone.wanted))
        left, right = self.axes[0]
        wipe(left)
        wipe(right)
        plots.gated_outputs(left, alone.x, alone.wanted, alone.found[functions, chosen])
        left.set_title("functions (broad), one component alone (dashed)", fontsize=10, y=1)
        plots.matrix(right, alone.errors.clamp(max=9.99).round(decimals=2), limit=1)
        right.set(xlabel="component", ylabel="function", title="relative error, that component alone")
        right.title.set_fontsize(10)
        errors = alone.errors[functions, chosen]
        n_served = int((errors <= experiments.SERVED).sum())
        told = ", ".join(f"{error:.3f}" for error in errors)
        self.refresh(
            f'<b>functions served: <span class="pdh-served">{n_served}</span> of {len(errors)}</b> · relative errors '
            f'<span class="pdh-errors">{told}</span>',
            f"Seed {seed}, λ_S = {coefficient:g}: the functions, and for each the output of its component alone; "
            f"and the relative error of each function with each component. {n_served} of {len(errors)} served; "
            f"errors {told}.",
        )
