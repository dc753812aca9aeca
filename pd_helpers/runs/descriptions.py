"""A run in a few words: what it is, how good it is and how long it took, as text and for notebooks."""

from collections.abc import Mapping
from html import escape
from numbers import Real
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import nn

from pd_helpers.core.components import ComponentModel
from pd_helpers.core.method import Method

N_IN_TEXT, N_IN_TABLE = 3, 12
"""Layers that are named; of the others only the number is."""
LONGEST = 30
"""Letters of a name that are shown."""


@runtime_checkable
class Described(Protocol):
    """What a run has that is said of it; `Run` says what these are."""

    name: str | None
    seed: int
    method: Method
    target: nn.Module
    components: ComponentModel
    candidates: list
    metrics: dict[str, Any]
    trained: dict[str, Any]
    step: int
    seconds: float
    device: str


class Measured(NamedTuple):
    """One use of a decomposed matrix, in words."""

    name: str
    components: str
    alive: str
    """Number of its components that are alive; empty if that was not measured."""
    l0: str
    """Mean number of components per row whose importance is above 0.1; empty if that was not measured."""


def described(run: Described) -> str:
    """One paragraph of at most 600 characters."""
    uses = _uses(run)
    shown = []
    for use in uses[:N_IN_TEXT]:
        measured = f", {use.alive} alive" * bool(use.alive) + f", L0 {use.l0}" * bool(use.l0)
        shown.append(f"{use.name} ({use.components} components{measured})")
    if len(uses) > N_IN_TEXT:
        shown.append(f"and {len(uses) - N_IN_TEXT} more")
    return " ".join([_what(run), f"Layers: {', '.join(shown)}.", *_how_good(run), _how_long(run)])


def described_in_html(run: Described) -> str:
    """The same with a table of the layers, in whatever colours the page has."""
    uses = _uses(run)
    head = "".join(f"<th>{name}</th>" for name in ("layer", "components", "alive", "L0"))
    lines = ["".join(f"<td>{escape(part)}</td>" for part in use) for use in uses[:N_IN_TABLE]]
    rows = "".join(f"<tr>{line}</tr>" for line in lines)
    rest = f"<p>and {len(uses) - N_IN_TABLE} more layers</p>" if len(uses) > N_IN_TABLE else ""
    return (
        f"<div><p>{escape(_what(run))}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{rest}"
        f"<p>{escape(' '.join([*_how_good(run), _how_long(run)]))}</p></div>"
    )


def _what(run: Described) -> str:
    network = _short(type(run.target).__name__)
    origin = "a network of your own" if run.name is None else f"preset {_short(run.name)}"
    return f"{run.method.name.upper()} decomposition of {network}, {origin} (seed {run.seed})."


def _uses(run: Described) -> list[Measured]:
    alive, l0 = (_by_use(run.metrics.get(name)) for name in ("n_alive", "l0"))
    return [
        Measured(
            _short(use) or "the network",
            str(run.components.layers[layer].C),
            str(alive[use]) if use in alive else "",
            _number(l0[use]) if use in l0 else "",
        )
        for use, (layer, _) in run.components.uses.items()
    ]


def _how_good(run: Described) -> list[str]:
    names = {"recon": "reconstruction error", "faithfulness": "faithfulness error"}
    measured = [f"{words} {_number(run.metrics[name])}" for name, words in names.items() if name in run.metrics]
    return [f"{', '.join(measured).capitalize()}."] if measured else []


def _how_long(run: Described) -> str:
    time = f"{_time(run.seconds)} on {run.trained.get('device', run.device)}"
    if run.trained:
        return f"Trained for {run.step:,} steps in {time}."
    competing = f", with {len(run.candidates)} initialisations to choose from" if len(run.candidates) > 1 else ""
    unmeasured = "" if run.metrics else ", not measured yet"
    return f"Unfinished: at step {run.step:,} of {run.method.config.steps:,} after {time}{competing}{unmeasured}."


def _by_use(metric: Any) -> Mapping[str, Any]:
    return metric if isinstance(metric, Mapping) else {}


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, Real) else "unknown"


def _time(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.3g} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _short(name: str) -> str:
    """A name, its beginning left out if it is long: the end of a path says more."""
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
