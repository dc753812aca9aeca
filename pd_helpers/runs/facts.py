"""What the facts of a stored run must look like: each field, what it may hold, and how an error says so.

Facts come from files, and files may come from anywhere. What passes here has the right fields with values of the right
kinds; whether they agree with the tensors is for `blueprint`, and whether anything was changed for the checksum.
"""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from pd_helpers.core.config import shown

Facts = dict[str, Any]
"""Name → any value that JSON can hold."""


class Kind(NamedTuple):
    """What a field may hold."""

    accepts: Callable[[Any], bool]
    words: str

    def or_none(self) -> "Kind":
        """This kind, or None."""
        return Kind(lambda value: value is None or self.accepts(value), f"{self.words} or null")


def _is_whole(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _is_mapping(value: Any, accepts: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(accepts, value.values()))


def _are_steps(value: Any) -> bool:
    are_whole = isinstance(value, list) and all(_is_whole(step, 0) for step in value)
    return are_whole and all(a < b for a, b in pairwise(value))


def _is_column(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _is_measured(value: Any) -> bool:
    return _is_number(value) or _is_mapping(value, _is_number)


TEXT = Kind(lambda value: isinstance(value, str), "a text")
COUNT = Kind(lambda value: _is_whole(value, 0), "a whole number of at least 0")
POSITIVE = Kind(lambda value: _is_whole(value, 1), "a whole number of at least 1")
SECONDS = Kind(lambda value: _is_number(value) and value >= 0, "a finite number of at least 0")
MAPPING = Kind(lambda value: isinstance(value, dict), "a mapping")
STEPS = Kind(_are_steps, "a list of rising whole numbers")
COLUMN = Kind(_is_column, "a list of finite numbers")
METRIC = Kind(_is_measured, "a finite number, or a mapping from names to finite numbers")

COMMON = {
    "format": TEXT,
    "experiment": TEXT.or_none(),
    "method": TEXT,
    "seed": COUNT,
    "config": MAPPING,
    "target_kind": TEXT.or_none(),
    "target_config": MAPPING.or_none(),
    "layers": Kind(lambda value: _is_mapping(value, POSITIVE.accepts), "a mapping from layers to whole numbers"),
    "target_seconds": SECONDS,
    "date": TEXT,
    "device": Kind(lambda value: value in ("cpu", "cuda", "mps"), "cpu, cuda or mps"),
    "threads": POSITIVE,
    "versions": Kind(lambda value: _is_mapping(value, TEXT.accepts), "a mapping from names to texts"),
}
RECORD = {"snapshot_steps": STEPS, "history": MAPPING, "seconds": SECONDS}
OPTIONAL = {"instruction_set": TEXT, "first_batch": TEXT.or_none(), "example": MAPPING}
FINISHED = {**COMMON, **RECORD, "metrics": MAPPING, "sha256": TEXT}
CHECKPOINT = {**COMMON, "discarded_seconds": SECONDS, "candidates": Kind(lambda v: isinstance(v, list), "a list")}
CANDIDATE = {
    **RECORD,
    "step": COUNT,
    "score": Kind(lambda value: value is None or _is_number(value) or value == math.inf, "a number or null"),
}


def check_finished(facts: Facts) -> None:
    """Raise ValueError, which names the field, unless these can be the facts of a finished run."""
    _check(facts, FINISHED, {**OPTIONAL, "shipped": MAPPING, "checksum": TEXT})
    _check_layers(facts)
    _check_each(facts["metrics"], METRIC, "metrics.")
    _check_record(facts, facts)


def check_checkpoint(facts: Facts) -> None:
    """Raise ValueError, which names the field, unless these can be the facts of a checkpoint."""
    _check(facts, CHECKPOINT, {**OPTIONAL, "target_step": COUNT})
    if not facts["candidates"] and "target_step" not in facts:
        raise ValueError("candidates is [], but must hold at least one")
    if facts["candidates"]:
        _check_layers(facts)
    for i, candidate in enumerate(facts["candidates"]):
        if not isinstance(candidate, dict):
            raise ValueError(f"candidates[{i}] is {shown(candidate)}, but must be a mapping")
        _check(candidate, CANDIDATE, {"batches": COUNT}, f"candidates[{i}].")
        _check_record(candidate, facts, f"candidates[{i}].")


def plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics with NumPy's and torch's numbers as Python's."""
    return {
        name: plain(value) if isinstance(value, Mapping) else value.item() if _is_scalar(value) else value
        for name, value in metrics.items()
    }


def _is_scalar(value: Any) -> bool:
    return hasattr(value, "item") and getattr(value, "ndim", None) == 0


def check_metrics(metrics: Mapping[str, Any]) -> None:
    """Raise ValueError, which names the metric, for a value that could not be read back."""
    _check_each(metrics, METRIC, "metrics.")


def _check(facts: Facts, required: Mapping[str, Kind], optional: Mapping[str, Kind], within: str = "") -> None:
    for name in facts:
        if name not in required and name not in optional:
            raise ValueError(f"{within}{shown(name)} is not a field of a stored run")
    for name, kind in {**required, **optional}.items():
        if name not in facts:
            if name in required:
                raise ValueError(f"{within}{name} is missing; it must be {kind.words}")
        elif not kind.accepts(facts[name]):
            raise ValueError(f"{within}{name} is {shown(facts[name])}, but must be {kind.words}")


def _check_layers(facts: Facts) -> None:
    if not facts["layers"]:
        raise ValueError("layers is {}, but must name at least one layer")


def _check_each(values: Mapping[str, Any], kind: Kind, within: str) -> None:
    for name, value in values.items():
        if not (isinstance(name, str) and kind.accepts(value)):
            raise ValueError(f"{within}{name} is {shown(value)}, but must be {kind.words}")


def _check_record(record: Facts, facts: Facts, within: str = "") -> None:
    """The history has columns of one length, and nothing was recorded after the last step."""
    history = record["history"]
    _check_each(history, COLUMN, f"{within}history.")
    lengths = sorted({len(column) for column in history.values()})
    if len(lengths) > 1:
        raise ValueError(f"{within}history has columns of different lengths, {lengths[0]} and {lengths[-1]}")
    if not _are_steps(history.get("step", [])):
        raise ValueError(f"{within}history.step is {shown(history['step'])}, but must be {STEPS.words}")
    last = facts["config"].get("steps")
    if not _is_whole(last, 1):
        raise ValueError(f"config.steps is {shown(last)}, but must be {POSITIVE.words}")
    for name, steps in (
        ("snapshot_steps", record["snapshot_steps"]),
        ("history.step", record["history"].get("step", [])),
        ("step", [record.get("step", 0)]),
    ):
        if steps and steps[-1] > last:
            raise ValueError(f"{within}{name} ends with {steps[-1]}, but config.steps is {last}")
