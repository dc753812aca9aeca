"""Parameter decomposition: take a network's weights apart into mechanisms, with APD or SPD.

    import pd_helpers as pdh

    run = pdh.run("apd/tms_5-2", seed=0)                            an experiment of the papers
    run = pdh.fit(network, pdh.SPDConfig(C=30), data, ["fc1"])      a network of your own
    run = pdh.resume("folder")                                      go on with a run that was stopped
    run = pdh.shipped("spd/tms_40-10")                              one that was trained beforehand
    table = pdh.sweep("apd/tms_5-2", {"seed": range(5)})            many runs, several at a time

`plots`, `widgets`, `checks` and `shipped` load on first use, so that importing this stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pd_helpers.apd import APDConfig
from pd_helpers.components import decompose
from pd_helpers.gated import GatedConfig, GatedNetwork
from pd_helpers.presets import PRESETS, preset
from pd_helpers.residual_mlp import ResidualMLP, ResidualMLPConfig
from pd_helpers.runs import Run, fit, load, prepare, resume, run
from pd_helpers.spd import SPDConfig
from pd_helpers.sweeps import sweep
from pd_helpers.targets import TMS, TMSConfig, TransposedLinear, make_target

if TYPE_CHECKING:
    from pd_helpers import checks, plots, widgets
    from pd_helpers.plots import show
    from pd_helpers.shipping import shipped, shipped_sweep

__version__ = "0.1.0"

__all__ = [
    "PRESETS", "TMS", "APDConfig", "GatedConfig", "GatedNetwork", "ResidualMLP", "ResidualMLPConfig", "Run",
    "SPDConfig", "TMSConfig", "TransposedLinear", "checks", "decompose", "fit", "load", "make_target", "plots",
    "prepare", "preset", "resume", "run", "shipped", "shipped_sweep", "show", "sweep", "widgets",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ("shipped", "shipped_sweep"):
        return getattr(import_module("pd_helpers.shipping"), name)
    if name == "show":
        return import_module("pd_helpers.plots").show
    if name in ("plots", "widgets", "checks"):
        return import_module(f"pd_helpers.{name}")
    raise AttributeError(f"module 'pd_helpers' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
