"""Modules under the names they had in version 0.1.

    from pd_helpers import experiments               is analysis.neuron_contributions, .scrubbing and others
    from pd_helpers.shipping import end_state        is runs.sweeps

Importing one still works, and a warning says where its contents are now.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES = {
    "ablation": ["analysis.ablation"],
    "apd": ["core.apd"],
    "attributions": ["core.attributions"],
    "causal_importance": ["core.causal_importance", "core.shortcuts.gate_kernel"],
    "comparison": ["analysis.comparison", "course.apd_against_spd.ideas"],
    "components": ["core.components"],
    "config": ["core.config"],
    "data": ["targets.features"],
    "description_length": ["course.description_length.ideas", "course.kit.partitions"],
    "experiments": [
        "analysis.neuron_contributions",
        "analysis.importance_matrices",
        "analysis.scrubbing",
        "analysis.gated_functions",
        "analysis.decomposed",
    ],
    "factorization": ["course.matrix_decomposition.ideas"],
    "gated": ["targets.gated_functions"],
    "judging": ["analysis.judging", "analysis.editing"],
    "losses": ["core.losses"],
    "metrics": ["analysis.metrics"],
    "mixing": ["course.compressed_computation.ideas", "analysis.subspaces"],
    "output_matrix": ["analysis.output_matrix"],
    "pairs": ["core.shortcuts.active_pairs"],
    "presets": ["runs.presets"],
    "residual_mlp": ["targets.residual_mlp"],
    "shipping": ["runs.shipped", "runs.sweeps"],
    "spd": ["core.spd"],
    "storage": ["runs.files"],
    "superposition": ["course.superposition.ideas"],
    "sweeps": ["runs.sweeps"],
    "training": ["core.training", "core.shortcuts.threads"],
    "transcoder": ["course.spd_superposition.ideas"],
}
"""Former name → where its contents are now."""
RENAMED = {
    ("losses", "reconstruction"): "recon",
    ("losses", "hidden_reconstruction"): "hidden_recon",
    ("losses", "divergence"): "kl_divergence",
}
"""(former module, former name) → present name, of functions that are called otherwise now."""


class FormerModules(MetaPathFinder, Loader):
    """Finds the modules of `MODULES`, as views of the present ones."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, module = name.partition(".")
        return ModuleSpec(name, self) if package == "pd_helpers" and module in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        former = module.__name__.removeprefix("pd_helpers.")
        present = [f"pd_helpers.{name}" for name in MODULES[former]]
        warnings.warn(f"{module.__name__} is now {' and '.join(present)}", FutureWarning, stacklevel=2)

        def lookup(name: str) -> Any:
            for place in map(import_module, present):
                if hasattr(place, renamed := RENAMED.get((former, name), name)):
                    return getattr(place, renamed)
            raise AttributeError(f"{module.__name__} had no {name!r}; {' and '.join(present)} hold what it did")

        module.__getattr__ = lookup


def install() -> None:
    """Let imports find the former modules, after all others."""
    if not any(isinstance(finder, FormerModules) for finder in sys.meta_path):
        sys.meta_path.append(FormerModules())
