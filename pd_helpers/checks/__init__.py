"""Checks for the notebooks' exercises: call one with your function, and it says what to look at.

    pdh.checks.batch_top_k(my_batch_top_k)

A check tries the function on random inputs. It says "not attempted yet" for the stub, accepts any correct way of
writing the function, and names the mistake where the answers are those of a well-known slip.
"""

from importlib import import_module

from pd_helpers.checks.check import Check

SUBJECTS = (
    "apd",
    "attributions",
    "comparison",
    "description_length",
    "factorization",
    "gated",
    "layers",
    "lp",
    "mixing",
    "output_matrix",
    "own_network",
    "sharing",
    "spd",
    "spd_from_scratch",
    "superposition",
    "targets",
)
MODULES = [import_module(f"pd_helpers.checks.{subject}") for subject in SUBJECTS]
CHECKS = {check.name: check for module in MODULES for check in vars(module).values() if isinstance(check, Check)}
"""Name → check, for all exercises."""

globals().update(CHECKS)
