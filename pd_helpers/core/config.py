"""Configurations: frozen dataclasses whose fields know their allowed values and reject any other with one sentence."""

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

MOST = 10**15
"""Largest whole number of any field: it survives a float, and no machine counts further."""
SMALLEST, LARGEST = 1e-30, 1e30
"""Range of real numbers besides 0: well inside that of 32-bit floats, in which everything is computed."""

SLOWEST = 1e-10
"""Smallest learning rate."""
RAREST = 1e-7
"""Smallest probability of a feature."""
FLATTEST = 0.01
"""Smallest exponent."""
REASONS = {
    SMALLEST: "",
    SLOWEST: ", since smaller steps are lost in the rounding of 32-bit floats",
    RAREST: ", since the 24 bits of a random number cannot express less",
    FLATTEST: ", since with a smaller exponent a norm only counts what is not zero",
}
"""Smallest number besides 0 → why it is that."""


def whole(default: int | None, *, at_least: int = 1, at_most: int = MOST) -> Any:
    """A field for whole numbers from `at_least` to `at_most`; it also takes None if that is the default."""
    return dataclasses.field(default=default, metadata={"kind": int, "low": at_least, "high": at_most})


def number(default: float | None, *, high: float = LARGEST, open: bool = False, least: float = SMALLEST) -> Any:
    """A field for 0, unless `open`, and numbers in [least, high]; it also takes None if that is the default."""
    return dataclasses.field(default=default, metadata={"kind": float, "high": high, "open": open, "least": least})


def choice(default: str, *values: str) -> Any:
    """A field for one of these words."""
    return dataclasses.field(default=default, metadata={"kind": str, "values": values})


def choice_or_function(default: str, *values: str) -> Any:
    """A field for one of these words, or for a function."""
    return dataclasses.field(default=default, metadata={"kind": str, "values": values, "function": True})


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
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def replace(self, /, **changes: Any) -> "Config":
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


def check_micro_batches(config: Any) -> None:
    """Raise ValueError for a batch of fewer inputs than parts."""
    if config.micro_batches > config.batch_size:
        raise ValueError(
            f"micro_batches must be at most batch_size = {config.batch_size}, but is {config.micro_batches}; "
            f"{config.batch_size} works"
        )


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
    if rule.get("function") and callable(value) and not isinstance(value, type):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # a numpy or torch number
        value = value.item()
    kind = rule["kind"]
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(max(-(MOST**9), min(value, MOST**9)))  # no float holds larger ones, and no field takes them
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(_refusal(field, value))
    if kind is str and value not in rule["values"]:
        raise ValueError(_refusal(field, value))
    if kind is int and not rule["low"] <= value <= rule["high"]:
        raise ValueError(_refusal(field, value))
    if kind is float and not (rule["least"] <= value <= rule["high"] or (value == 0 and not rule["open"])):
        raise ValueError(_refusal(field, value))
    return value


def _refusal(field: dataclasses.Field, value: Any) -> str:
    """Why a field does not take a value, in one sentence."""
    requirement = _requirement(field.metadata, value) + (" or None" if field.default is None else "")
    return f"{field.name} must be {requirement}, but is {shown(value)}; {_example(field)!r} works"


def _requirement(rule: Mapping[str, Any], value: Any) -> str:
    """The allowed values in words; limits that hardly anybody reaches are only said to those who passed them."""
    if rule["kind"] is bool:
        return "True or False"
    if rule["kind"] is str:
        return " or ".join([*map(repr, rule["values"]), *(["a function"] if rule.get("function") else [])])
    if rule["kind"] is int:
        too_large = isinstance(value, int) and value > rule["high"]
        return f"a whole number of at most {rule['high']}" if too_large else f"a whole number of at least {rule['low']}"
    if isinstance(value, float) and 0 < value < rule["least"]:
        return f"a number of at least {rule['least']:g}{REASONS[rule['least']]}"
    if isinstance(value, float) and rule["high"] == LARGEST < value < math.inf:
        return f"a number of at most {LARGEST:g}"
    above = "above 0" if rule["open"] else "of at least 0"
    return f"a finite number {above}" + (f" and at most {rule['high']:g}" if rule["high"] < LARGEST else "")


class _Short(reprlib.Repr):
    """Values on one line: numbers and texts as they are, lists of them cut short, and of anything else what it is."""

    maxstring = maxlong = 60

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < MOST**4 else f"a number of {x.bit_length()} bits"

    def repr_instance(self, x: Any, level: int) -> str:
        if x is None or isinstance(x, bool | float | complex | bytes):
            return repr(x)[:60]
        if isinstance(x, type):
            return f"the class {x.__name__}"
        shape = getattr(x, "shape", None)
        return a_or_an(type(x).__name__) + (f" of shape {tuple(shape)}" if isinstance(shape, tuple) else "")


def a_or_an(name: str) -> str:
    """A name with its article."""
    return f"{'an' if name[:1] in tuple('AEIOaeio') else 'a'} {name}"


shown = _Short().repr
"""A value as a sentence can show it."""


def _example(field: dataclasses.Field) -> Any:
    """A value that the field takes."""
    return field.default if field.default is not None else 1
