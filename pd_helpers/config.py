"""Configurations are frozen dataclasses whose fields say which values they take, and refuse others in one sentence."""

import dataclasses
import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any


def whole(default: int | None, *, at_least: int = 1) -> Any:
    """A field for whole numbers, or None where that is the default."""
    return dataclasses.field(default=default, metadata={"kind": int, "low": at_least})


def number(default: float | None, *, low: float = 0.0, high: float = math.inf, open: bool = False) -> Any:
    """A field for finite numbers in [low, high], or None where that is the default; `open` leaves out low itself."""
    return dataclasses.field(default=default, metadata={"kind": float, "low": low, "high": high, "open": open})


def choice(default: str, *values: str) -> Any:
    """A field for one of a few words."""
    return dataclasses.field(default=default, metadata={"kind": str, "values": values})


def switch(default: bool) -> Any:
    """A field that is on or off."""
    return dataclasses.field(default=default, metadata={"kind": bool})


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of all configurations: checks every field when it is made.

    Raises TypeError for a value of the wrong kind and ValueError for one out of range; both name the field, the
    value and a value that works.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))

    def to_dict(self) -> dict[str, Any]:
        """Field name → value."""
        return dataclasses.asdict(self)

    def replace(self, **changes: Any) -> "Config":
        """A copy with some fields changed; an unknown field raises ValueError naming the nearest one."""
        (changed,) = replace([self], changes)
        return changed


def replace(configs: list[Config], changes: Mapping[str, Any]) -> list[Config]:
    """Copies of `configs`, each with those of the changes that are its fields; every change must find a field."""
    known = [field.name for config in configs for field in dataclasses.fields(config)]
    for key in changes:
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known fields are {', '.join(known)}"
            raise ValueError(f"unknown field {key!r}: {hint}")
    return [
        dataclasses.replace(c, **{k: v for k, v in changes.items() if k in {f.name for f in dataclasses.fields(c)}})
        for c in configs
    ]


def _checked(field: dataclasses.Field, value: Any) -> Any:
    """The value, with whole floats made int and numpy or torch numbers made plain; raises as `Config` says."""
    rule, optional = field.metadata, field.default is None
    if value is None and optional:
        return None
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # a numpy or torch number
        value = value.item()
    kind, wanted = rule["kind"], _wanted(rule) + (" or None" if optional else "")
    complaint = f"{field.name} must be {wanted}, but is {value!r}; {_working(field)!r} works"
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(complaint)
    if kind is str and value not in rule["values"]:
        raise ValueError(complaint)
    if kind is int and value < rule["low"]:
        raise ValueError(complaint)
    if kind is float:
        inside = rule["low"] <= value <= rule["high"] and not (rule["open"] and value == rule["low"])
        if not (inside and math.isfinite(value)):
            raise ValueError(complaint)
    return value


def _wanted(rule: Mapping[str, Any]) -> str:
    if rule["kind"] is bool:
        return "True or False"
    if rule["kind"] is str:
        return " or ".join(map(repr, rule["values"]))
    if rule["kind"] is int:
        return f"a whole number of at least {rule['low']}"
    above = f"above {rule['low']:g}" if rule["open"] else f"of at least {rule['low']:g}"
    return f"a finite number {above}" + (f" and at most {rule['high']:g}" if rule["high"] < math.inf else "")


def _working(field: dataclasses.Field) -> Any:
    return field.default if field.default is not None else max(1, field.metadata["low"])
