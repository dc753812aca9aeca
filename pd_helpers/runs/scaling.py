"""A preset at other sizes: its coefficients follow the sizes, so that losses keep the proportions they had.

Errors of the output are means over its numbers, and simplicity is a mean over parameters, but importances and active
components are summed. What one feature contributes to each loss is therefore

    reconstruction, minimality    its error / n_outputs
    importance                    the number of its subcomponents
    simplicity                    the norm of its component / n_parameters

With four times as many features the first becomes a quarter and the second stays, so that the coefficient must become a
quarter too. In all, for n mechanisms that are each on with probability p:

    C                   ∝ n                            top_k, top_k_start    ∝ n p
    importance_coeff    ∝ 1 / n_outputs                simplicity_coeff      ∝ n_parameters / n_outputs
    frequency_coeff     ∝ 1 / n_outputs

The Lp formulation has another minimality loss, and there only C follows.

Proportion is necessary but not always enough. From the presets for 5 features in 2 dimensions SPD finds all of 8 in 3,
and APD does so in two seeds of three. Of 20 in 5 APD does not find all (MMCS 0.87 to 0.91, three seeds).
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

from pd_helpers.core.config import FORMER_NAMES
from pd_helpers.runs.presets import Settings


def resized(settings: Settings, overrides: Mapping[str, Any]) -> Settings:
    """The settings with these overrides; what is not among them follows the sizes that are, and a warning says so.

    Raises ValueError for an unknown field or a value out of range.
    """
    plain = settings.replace(**overrides)
    given = {FORMER_NAMES.get(key, key) for key in overrides}
    before = settings.config.to_dict()
    changes: dict[str, Any] = {}
    for name, factor in _factors(settings, plain).items():
        if name in given or not before.get(name) or factor == 1:
            continue
        value = _rounded(before[name], factor)
        if name.startswith("top_k"):
            value = min(max(value, 1 / plain.config.batch_size), changes.get("C", plain.config.C))
        if value != before[name]:
            changes[name] = value
    if not changes:
        return plain
    was = settings.target.to_dict()
    sizes = [
        f"{key}={value}"
        for key, value in overrides.items()
        if key in was and value != was[key] and not key.startswith("target_")
    ]
    now = " and ".join(f"{name} is {value:g} instead of {before[name]:g}" for name, value in changes.items())
    warnings.warn(f"with {', '.join(sizes)}, {now}, in proportion; set them to choose otherwise", stacklevel=2)
    return plain.replace(**changes)


def _factors(settings: Settings, plain: Settings) -> dict[str, float]:
    """Field of the decomposition → the factor by which it follows the sizes of the target."""
    old, new = settings.target.extent, plain.target.extent
    if old is None or new is None:
        return {}
    more = new.n_mechanisms / old.n_mechanisms
    factors = {"C": more}
    if getattr(plain.config, "attribution_p", None) is None:
        on = more * new.probability / old.probability if old.probability else 1.0
        outputs, parameters = new.n_outputs / old.n_outputs, new.n_parameters / old.n_parameters
        factors |= {
            "top_k": on,
            "top_k_start": on,
            "importance_coeff": 1 / outputs,
            "frequency_coeff": 1 / outputs,
            "simplicity_coeff": parameters / outputs,
        }
    return factors


def _rounded(value: float, factor: float) -> float:
    """The value times the factor, at three digits; of a whole number, the next whole number."""
    return math.ceil(value * factor) if isinstance(value, int) else float(f"{value * factor:.3g}")
