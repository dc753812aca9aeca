"""Do a run's metrics describe its components? Some metrics follow from the parameters alone, and can be compared."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from pd_helpers.analysis import metrics
from pd_helpers.analysis.decomposed import first_layer
from pd_helpers.core.components import ComponentModel
from pd_helpers.core.losses import faithfulness

LARGEST_COMPARED = 2**20
"""Numbers in the components of the first layer up to which MMCS and ML2R are compared, so that reading stays quick."""


@torch.no_grad()
def check_agreement(measured: Mapping[str, Any], model: ComponentModel) -> None:
    """Raise ValueError, which names the metric, where metrics contradict the parameters that they should describe."""
    uses = {use: model.layers[layer].C for use, (layer, _) in model.uses.items()}
    for name in ("n_alive", "l0"):
        values = measured.get(name, dict.fromkeys(uses, 0))
        if not isinstance(values, dict) or set(values) != set(uses):
            raise ValueError(f"metrics.{name} must have one entry for each of {', '.join(uses)}")
        for use, value in values.items():
            if not 0 <= value <= uses[use]:
                raise ValueError(f"metrics.{name}.{use} is {value}, but there are {uses[use]} components")
    for name, value in _of_parameters(model).items():
        stored = measured.get(name, value)
        if not (isinstance(stored, int | float) and math.isclose(stored, value, rel_tol=0.05, abs_tol=1e-6)):
            raise ValueError(f"metrics.{name} is {stored}, but the tensors give {value:.6g}")


def _of_parameters(model: ComponentModel) -> dict[str, float]:
    """The metrics that the parameters alone determine."""
    values = {"faithfulness": faithfulness(model.targets, model.sums, model.n_all_parameters).item()}
    C, d_out, d_in = len(model.factors[0]), *next(iter(model.targets.values())).shape
    if C * d_out * d_in <= LARGEST_COMPARED:
        cosines, ratios = metrics.best_match(*first_layer(model))
        values |= {"mmcs": cosines.mean().item(), "ml2r": ratios.mean().item()}
    return values
