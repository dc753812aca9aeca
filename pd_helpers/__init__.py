"""Parameter decomposition: take a network's weights apart into mechanisms, with APD or SPD.

    import pd_helpers as pdh

    run = pdh.run("apd/tms_5-2", seed=0)                            an experiment of the papers
    run = pdh.fit(network, pdh.SPDConfig(C=30), data, ["fc1"])      a network of your own
    run = pdh.resume("folder")                                      continue a run that was stopped
    run = pdh.shipped("spd/tms_40-10")                              a run that was trained beforehand
    table = pdh.sweep("apd/tms_5-2", {"seed": range(5)})            many runs, several at a time

The package has six floors, and each imports only from those below it: `core` holds the methods, `targets` the papers'
networks, `analysis` the questions one asks of a finished decomposition, `runs` training and storage, `plots` the
pictures, and `course` what the notebooks show. `plots`, `widgets` and `checks` load on first use, so that importing
the package is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pd_helpers import former
from pd_helpers.analysis.attacks import attack
from pd_helpers.core.apd import APDConfig
from pd_helpers.core.components import TransposedLinear, decompose
from pd_helpers.core.networks.unpacked import unpack
from pd_helpers.core.spd import SPDConfig
from pd_helpers.core.vpd import VPDConfig
from pd_helpers.runs.api import fit, prepare, run
from pd_helpers.runs.loading import load, resume
from pd_helpers.runs.presets import PRESETS, preset
from pd_helpers.runs.run import Run
from pd_helpers.runs.shipped import shipped, shipped_sweep
from pd_helpers.runs.sweeps import end_state, sweep
from pd_helpers.targets.base import make_target
from pd_helpers.targets.gated_functions import GatedConfig, GatedNetwork
from pd_helpers.targets.induction import InductionConfig, InductionNetwork
from pd_helpers.targets.pingpong import PingPong, PingPongConfig
from pd_helpers.targets.residual_mlp import ResidualMLP, ResidualMLPConfig
from pd_helpers.targets.tms import TMS, TMSConfig

if TYPE_CHECKING:
    from pd_helpers import checks, plots, widgets
    from pd_helpers.plots import show

__version__ = "0.5.0"

former.install()

__all__ = [
    "PRESETS", "TMS", "APDConfig", "GatedConfig", "GatedNetwork", "InductionConfig", "InductionNetwork", "PingPong",
    "PingPongConfig", "ResidualMLP", "ResidualMLPConfig", "Run", "SPDConfig", "TMSConfig", "TransposedLinear",
    "VPDConfig", "attack", "checks", "decompose", "end_state", "fit", "load", "make_target", "plots", "prepare",
    "preset", "resume", "run", "shipped", "shipped_sweep", "show", "sweep", "unpack", "widgets",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "show":
        return import_module("pd_helpers.plots").show
    if name in ("plots", "widgets", "checks"):
        return import_module(f"pd_helpers.{name}")
    raise AttributeError(f"module 'pd_helpers' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
