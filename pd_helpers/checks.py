"""Checks for the notebooks' exercises: call one with your function, and it says what to look at.

    pdh.checks.batch_top_k(my_batch_top_k)

A check tries the function on a case small enough to be worked out by hand and on random inputs. It says "not attempted
yet" for the stub, accepts any correct way of writing the function, names the mistake where the answers are those of a
well-known slip, and otherwise shows a case that is wrong. Each check stands with its topic in `pd_helpers.course`;
this module only hands them out.
"""

from pd_helpers.course.adversary import exercises as _adversary
from pd_helpers.course.apd_against_spd import exercises as _apd_against_spd
from pd_helpers.course.apd_compressed_computation import exercises as _apd_compressed_computation
from pd_helpers.course.apd_cross_layer import exercises as _apd_cross_layer
from pd_helpers.course.apd_gated_functions import exercises as _apd_gated_functions
from pd_helpers.course.apd_lp import exercises as _apd_lp
from pd_helpers.course.apd_superposition import exercises as _apd_superposition
from pd_helpers.course.attention import exercises as _attention
from pd_helpers.course.attributions import exercises as _attributions
from pd_helpers.course.compressed_computation import exercises as _compressed_computation
from pd_helpers.course.description_length import exercises as _description_length
from pd_helpers.course.kit.check import Check
from pd_helpers.course.matrix_decomposition import exercises as _matrix_decomposition
from pd_helpers.course.spd_compressed_computation import exercises as _spd_compressed_computation
from pd_helpers.course.spd_cross_layer import exercises as _spd_cross_layer
from pd_helpers.course.spd_from_scratch import exercises as _spd_from_scratch
from pd_helpers.course.spd_superposition import exercises as _spd_superposition
from pd_helpers.course.start_here import exercises as _start_here
from pd_helpers.course.superposition import exercises as _superposition
from pd_helpers.course.training_the_targets import exercises as _training_the_targets
from pd_helpers.course.your_own_network import exercises as _your_own_network

TOPICS = (
    _start_here,
    _matrix_decomposition,
    _superposition,
    _training_the_targets,
    _compressed_computation,
    _description_length,
    _attributions,
    _apd_superposition,
    _apd_compressed_computation,
    _apd_cross_layer,
    _apd_gated_functions,
    _apd_lp,
    _spd_from_scratch,
    _spd_superposition,
    _spd_compressed_computation,
    _spd_cross_layer,
    _apd_against_spd,
    _your_own_network,
    _adversary,
    _attention,
)
CHECKS = {check.name: check for topic in TOPICS for check in vars(topic).values() if isinstance(check, Check)}
"""Name → check, for all exercises."""
FORMER_NAMES = {"largest_price": "largest_coefficient"}
"""Name of a check in earlier versions → its name now; both work."""


def __getattr__(name: str) -> Check:
    name = FORMER_NAMES.get(name, name)
    if name in CHECKS:
        return CHECKS[name]
    raise AttributeError(f"there is no check named {name!r}; there are {', '.join(sorted(CHECKS))}")


def __dir__() -> list[str]:
    return sorted({*globals(), *CHECKS})
