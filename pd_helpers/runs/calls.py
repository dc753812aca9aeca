"""Calls with arguments of the wrong kind, answered in one sentence before any work: what annotations say is held.

    @checked()
    def halves(additions: dict[str, Tensor], feature: int) -> ...

A bad call raises TypeError, which names the argument, its value, and a value that works: the default, what `works`
says for this argument, the first example in the docstring that calls the function, or a common one of the kind.
"""

import collections.abc as abc
import functools
import inspect
import numbers
import operator
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from pd_helpers.core.config import a_or_an, shown

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "True or False",
    type(None): "None",
    os.PathLike: "a path",
    torch.Tensor: "a tensor",
    torch.nn.Module: "a network",
}
"""Kind → how a sentence calls it."""
COMMON = {
    "Run": 'pdh.shipped("apd/tms_5-2")',
    "TMS": 'pdh.shipped("apd/tms_5-2").target',
    "ResidualMLP": 'pdh.shipped("apd/resid_mlp_1").target',
    "GatedNetwork": "pdh.make_target(pdh.GatedConfig())",
    "InductionNetwork": "pdh.make_target(pdh.InductionConfig())",
    "PingPong": "pdh.make_target(pdh.PingPongConfig())",
    "DataFrame": 'pdh.shipped_sweep("apd/tms_5-2")',
    "Axes": "pdh.plots.figure(4, 3)[1][0, 0]",
    "Figure": "pdh.plots.figure(4, 3)[0]",
    "Tensor": "torch.rand(2, 5)",
    "SingleFeature": "scrubbing.single_feature(run, 1000, torch.Generator())",
    "Scrubbed": "scrubbing.scrub(run, 1000, torch.Generator())",
    "Contributions": "neuron_contributions.contributions(run)",
    "Directions": "what ideas.directions returns",
    "int": "1",
    "float": "1.0",
    "str": "'a text'",
}
"""Name of a kind → an expression of it."""


def checked(*by_itself: str, **works: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """A decorator for public functions and constructors: arguments that are not as annotated raise TypeError.

    `by_itself` names arguments that the function checks by itself, and `works` gives for others what works.
    """

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def careful(*values: Arguments.args, **named: Arguments.kwargs) -> Result:
            try:
                bound = signature.bind(*values, **named)
            except TypeError as error:
                raise TypeError(f"{_name(function)}: {error}; {_call(function, works)} works") from None
            kinds = {}
            for name, value in bound.arguments.items():
                parameter = signature.parameters[name]
                if parameter.kind is parameter.VAR_KEYWORD or name in by_itself:
                    continue
                kind = kinds[name] = _annotation(function, parameter)
                value = bound.arguments[name] = _as_tensor(value, kind)
                for one in value if parameter.kind is parameter.VAR_POSITIONAL else [value]:
                    if not fits(one, kind):
                        example = works.get(name) or _working(function, parameter, kind)
                        raise TypeError(f"{name} must be {in_words(kind)}, but is {shown(one)}; {example} works")
            _check_sizes(kinds, bound.arguments)
            return function(*bound.args, **bound.kwargs)

        return careful

    return decorate


def _as_tensor(value: Any, kind: Any) -> Any:
    """An array as a tensor, where a tensor is wanted."""
    wanted = kind is torch.Tensor or hasattr(kind, "dim_str")
    is_array = isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
    return torch.as_tensor(value.copy()) if wanted and is_array else value


def _check_sizes(kinds: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Raise ValueError unless dimensions of tensors that are called the same have the same size."""
    sizes: dict[str, tuple[int, str]] = {}
    for name, kind in kinds.items():
        dims = getattr(kind, "dim_str", "").split()
        for dim, size in zip(dims, arguments[name].shape if dims else (), strict=False):
            expected, other = sizes.setdefault(dim, (size, name))
            if size != expected and dim.isidentifier() and dim != "_":
                raise ValueError(
                    f"{name} must be {in_words(kind)}, but its {dim} is {size} while that of {other} is {expected}; "
                    f"{expected} works"
                )


def check_columns(name: str, table: Any, columns: abc.Iterable[str], works: str) -> None:
    """Raise ValueError unless the table given as `name` has these columns."""
    if lacks := [column for column in columns if column not in table.columns]:
        raise ValueError(
            f"{name} must have the columns {', '.join(columns)}, but lacks {', '.join(lacks)}; {works} works"
        )


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated kind, what it contains included; arrays pass for sequences."""
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in of)
    if kind is Any:
        return True
    if kind is int:
        return not isinstance(value, bool | np.bool_) and _is_index(value)
    if kind is float:
        is_number = isinstance(value, numbers.Real) or (getattr(value, "ndim", None) == 0 and _is_real(value))
        return is_number and not isinstance(value, bool | np.bool_)
    if kind is bool:
        return isinstance(value, bool | np.bool_)
    if origin is tuple:
        return isinstance(value, tuple | list) and len(value) == len(of) and all(map(fits, value, of))
    if origin in (dict, abc.Mapping):
        return isinstance(value, abc.Mapping) and all(fits(k, of[0]) and fits(v, of[1]) for k, v in value.items())
    if origin in (list, abc.Sequence) or kind is abc.Sequence:
        if isinstance(value, np.ndarray | torch.Tensor):
            return value.ndim > 0
        has_order = isinstance(value, abc.Reversible) and not isinstance(value, str | bytes | abc.Mapping)
        return has_order and all(fits(one, of[0]) for one in value if of)
    if origin is abc.Callable:
        return callable(value)
    if isinstance(kind, type) and not getattr(kind, "_is_protocol", False):
        return isinstance(value, kind)
    return True


def _is_index(value: Any) -> bool:
    try:
        operator.index(value)
    except (TypeError, RuntimeError):
        return False
    return True


def _is_real(value: Any) -> bool:
    return isinstance(value, np.ndarray | torch.Tensor) and not np.iscomplexobj(value.item())


def in_words(kind: Any) -> str:
    """An annotated kind as a sentence names it."""
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        *most, last = map(in_words, of)
        return f"{', '.join(most)} or {last}"
    if origin is abc.Callable:
        return "a function"
    if origin is tuple:
        return f"a tuple of {len(of)}"
    if origin in (dict, abc.Mapping):
        return f"a mapping from {_plural(of[0])} to {_plural(of[1])}"
    if origin is not None or kind is abc.Sequence:
        return "a list" + (f" of {_plural(of[0])}" if of else "")
    if shape := getattr(kind, "dim_str", None):
        return f"a tensor of shape ({', '.join(shape.split())})"
    return WORDS.get(kind) or a_or_an(getattr(kind, "__name__", "value"))


def _plural(kind: Any) -> str:
    return re.sub(r"\ban? ((?:whole )?\w+)", r"\1s", in_words(kind))


def _name(function: Callable) -> str:
    return function.__qualname__.removesuffix(".__init__")


def _annotation(function: Callable, parameter: inspect.Parameter) -> Any:
    """The kind of an argument; those written as text are read once more, where pandas is known."""
    kind = parameter.annotation
    if isinstance(kind, str):  # such as "pandas.DataFrame | None", so that importing the package spares pandas
        kind = functools.reduce(operator.or_, map(_named, kind.split(" | ")))
    return Any if kind is parameter.empty else kind


def _named(kind: str) -> type:
    module, _, name = kind.rpartition(".")
    return getattr(import_module(module), name) if module else type(None)


def _example(function: Callable) -> str | None:
    """The first call of the function in its docstring, or in that of its class."""
    owner = vars(inspect.getmodule(function)).get(_name(function))
    text = inspect.getdoc(function) if owner is None or function.__name__ != "__init__" else inspect.getdoc(owner)
    name = re.escape(_name(function))
    found = re.search(rf"^>>> (?:\w+ = )?((?:pdh\.)?(?:\w+\.)*{name}\(.*?\))(?:\.\w+|  #.*)?$", text or "", re.M)
    return found and found[1]


def _call(function: Callable, works: Mapping[str, str]) -> str:
    """A call of the function with what it cannot do without."""
    parameters = inspect.signature(function).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.name != "self" and p.kind is not p.VAR_KEYWORD]
    given = [works.get(p.name) or _working(function, p, _annotation(function, p)) for p in needed]
    return _example(function) or f"{_name(function)}({', '.join(given)})"


def _working(function: Callable, parameter: inspect.Parameter, kind: Any) -> str:
    if parameter.default not in (parameter.empty, None):
        return repr(parameter.default)
    kinds = [kind, *typing.get_args(kind)]
    common = [COMMON[one.__name__] for one in kinds if getattr(one, "__name__", None) in COMMON]
    if example := _example(function):
        return example
    if parameter.default is None:
        return "None"
    return common[0] if common else in_words(kind)
