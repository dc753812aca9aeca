"""Configurations: frozen dataclasses whose fields know their allowed values and reject any other with one sentence."""

import dataclasses
import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any


def whole(default: int | None, *, at_least: int = 1) -> Any:
    """A field for whole numbers of at least `at_least`; it also takes None if that is the default."""
    return dataclasses.field(default=default, metadata={"kind": int, "low": at_least})


def number(default: float | None, *, low: float = 0.0, high: float = math.inf, open: bool = False) -> Any:
    """A field for finite numbers in [low, high], without `low` if `open`; it also takes None if that is the default."""
    return dataclasses.field(default=default, metadata={"kind": float, "low": low, "high": high, "open": open})


def choice(default: str, *values: str) -> Any:
    """A field for one of these words."""
    return dataclasses.field(default=default, metadata={"kind": str, "values": values})


def switch(default: bool) -> Any:
    """A field that is True or False."""
    return dataclasses.field(default=default, metadata={"kind": bool})


FORMER_NAMES = {"starts": "n_init", "start_steps": "selection_steps"}
"""Name of a field in earlier versions → its name now. Both names are understood."""


class _Fields(type):
    """Accepts former names of a configuration's fields, and for an unknown name suggests the nearest field."""

    def __call__(cls, *values: Any, **fields: Any) -> Any:
        names = [field.name for field in dataclasses.fields(cls)]
        return super().__call__(*values, **{_present_name(key, names, TypeError): v for key, v in fields.items()})


@dataclasses.dataclass(frozen=True)
class Config(metaclass=_Fields):
    """Base of all configurations: checks every field when it is made.

    Raises TypeError for an unknown field or a value of the wrong kind, and ValueError for a value out of range; the
    message names the field, the value and a value that works.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))

    def __getattr__(self, name: str) -> Any:
        if name in FORMER_NAMES:
            return getattr(self, FORMER_NAMES[name])
        raise AttributeError(f"{type(self).__name__} has no field {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Field name → value."""
        return dataclasses.asdict(self)

    def replace(self, **changes: Any) -> "Config":
        """A copy with some fields changed; an unknown field raises a ValueError that names the nearest one."""
        (copy,) = replace([self], changes)
        return copy


def replace(configs: list[Config], changes: Mapping[str, Any]) -> list[Config]:
    """Copies of `configs`, in each of which those changes are made that are fields of it.

    Raises ValueError for a change that is a field of none of them; the message names the nearest field.
    """
    names = [[field.name for field in dataclasses.fields(config)] for config in configs]
    all_names = [name for own_names in names for name in own_names]
    changes = {_present_name(key, all_names, ValueError): value for key, value in changes.items()}
    return [
        dataclasses.replace(config, **{key: value for key, value in changes.items() if key in own_names})
        for config, own_names in zip(configs, names, strict=True)
    ]


def _present_name(key: str, names: list[str], error: type[Exception]) -> str:
    """The name of the field that `key` stands for; raises `error`, which names the nearest field, if there is none."""
    key = FORMER_NAMES.get(key, key) if key not in names else key
    if key not in names:
        matches = get_close_matches(key, names, n=1, cutoff=0.4)
        hint = f"did you mean {matches[0]!r}?" if matches else f"known fields are {', '.join(names)}"
        raise error(f"unknown field {key!r}: {hint}")
    return key


def _checked(field: dataclasses.Field, value: Any) -> Any:
    """The value as a plain Python number of the right type, if it is a numpy or torch number or a whole float.

    Raises TypeError or ValueError as `Config` says.
    """
    rule, optional = field.metadata, field.default is None
    if value is None and optional:
        return None
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # a numpy or torch number
        value = value.item()
    kind, requirement = rule["kind"], _requirement(rule) + (" or None" if optional else "")
    message = f"{field.name} must be {requirement}, but is {value!r}; {_example(field)!r} works"
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(message)
    if kind is str and value not in rule["values"]:
        raise ValueError(message)
    if kind is int and value < rule["low"]:
        raise ValueError(message)
    if kind is float:
        inside = rule["low"] <= value <= rule["high"] and not (rule["open"] and value == rule["low"])
        if not (inside and math.isfinite(value)):
            raise ValueError(message)
    return value


def _requirement(rule: Mapping[str, Any]) -> str:
    """The allowed values in words."""
    if rule["kind"] is bool:
        return "True or False"
    if rule["kind"] is str:
        return " or ".join(map(repr, rule["values"]))
    if rule["kind"] is int:
        return f"a whole number of at least {rule['low']}"
    above = f"above {rule['low']:g}" if rule["open"] else f"of at least {rule['low']:g}"
    return f"a finite number {above}" + (f" and at most {rule['high']:g}" if rule["high"] < math.inf else "")


def _example(field: dataclasses.Field) -> Any:
    """A value that the field takes."""
    return field.default if field.default is not None else max(1, field.metadata["low"])
