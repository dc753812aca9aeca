"""Answers of exercises as numbers, whatever holds them, and numbers as short text."""

import inspect
from collections.abc import Callable, Generator, Mapping
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

WHOLE = 24
"""Numbers in a tensor up to which it is shown entry by entry."""
LONGEST = 400
"""Characters up to which the arguments of a call are shown; of longer ones only the shapes."""

_KINDS = {
    str: "text",
    dict: "a dictionary",
    set: "a set",
    list: "a list",
    tuple: "a tuple",
    Number: "a number",
    np.ndarray: "an array",
    Generator: "a generator, which is what yield makes",
    type(None): "None",
}


class UnreadableError(ValueError):
    """An answer that holds no numbers, or not only numbers; the message is a phrase that says what it is."""


def numbers(answer: Any) -> Tensor:
    """The numbers of a tensor, an array, a number, or a list or tuple of these, as float64 on the CPU.

    Raises:
        UnreadableError: If the answer is or contains anything else.
    """
    if isinstance(answer, Tensor):
        return _real(answer.detach().cpu().to_dense())
    if isinstance(answer, list | tuple | range):
        if type(answer).__module__ == "torch.return_types":
            raise UnreadableError("a tuple of " + " and ".join(type(answer).__match_args__))
        try:
            entries = [numbers(entry) for entry in answer]
        except UnreadableError as error:
            raise UnreadableError(f"{kind(answer)} with {error} in it") from None
        if len({entry.shape for entry in entries}) > 1:
            raise UnreadableError(f"{kind(answer)} whose entries have different shapes")
        return torch.stack(entries) if entries else torch.zeros(0, dtype=torch.float64)
    if isinstance(answer, Number):
        return _real(torch.tensor(complex(answer), dtype=torch.complex128))
    if hasattr(answer, "__array__"):
        array = np.asarray(answer)
        if array.dtype.kind in "biufc":
            return _real(torch.from_numpy(array.astype(np.complex128, order="C")))
        if array.dtype.kind == "O":
            return numbers(array.tolist())
        raise UnreadableError(f"an array of type {array.dtype}")
    raise UnreadableError(kind(answer))


def _real(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        if (tensor.imag.abs() > 1e-6).any():
            raise UnreadableError("a complex number" if tensor.ndim == 0 else "complex numbers")
        tensor = tensor.real
    return tensor.to(torch.float64, copy=True)


def kind(value: Any) -> str:
    """What a value is, as a phrase: "a function", "a dictionary", "an object of type Path"."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    for known, phrase in _KINDS.items():
        if isinstance(value, known):
            return phrase
    return "a function" if callable(value) else f"an object of type {type(value).__name__}"


def same(answer: Tensor, wanted: Tensor) -> bool:
    """Whether two answers agree in shape, and in numbers up to rounding in single precision."""
    if answer.shape != wanted.shape:
        return False
    noise = 2e-6 * max([1.0, *wanted[wanted.isfinite()].abs().tolist()])
    return torch.allclose(answer, wanted, rtol=1e-5, atol=noise, equal_nan=True)


def show(value: Any, digits: int = 3, whole: int = WHOLE) -> str:
    """A value as short text: numbers with so many digits, a large tensor as its shape, a function as its docstring."""
    if isinstance(value, Tensor):
        return _nested(value.tolist(), digits) if value.numel() <= whole else kind(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {show(entry, digits, whole)}" for name, entry in value.items()) + "}"
    if callable(value):
        return inspect.getdoc(value) or "a function"
    return _nested(value, digits)


def _nested(value: Any, digits: int) -> str:
    if isinstance(value, list | tuple):
        opening, closing = "[]" if isinstance(value, list) else "()"
        return opening + ", ".join(_nested(entry, digits) for entry in value) + closing
    return f"{value + 0.0:.{digits}g}" if isinstance(value, float) else str(value)


def compared(answer: Tensor, wanted: Tensor) -> tuple[str, str]:
    """Two answers of one shape as text, with as many digits as tell them apart; of large ones the worst entry."""
    gap = (answer - wanted).abs().nan_to_num(nan=torch.inf)
    place = ""
    if wanted.numel() > WHOLE:
        index = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
        place, answer, wanted = f" at {list(index)}", answer[index], wanted[index]
    for digits in (3, 4, 6, 9, 17):
        if show(answer, digits) != show(wanted, digits):
            break
    return show(answer, digits) + place, show(wanted, digits) + place


def case(function: Callable, solution: Callable, arguments: tuple) -> str:
    """The arguments of a call as text, under the names that the function gives them, or else the solution."""
    numbered = [f"input {i + 1}" for i in range(len(arguments))]
    names = next(n for n in (_names(function), _names(solution), numbered) if len(n) >= len(arguments))
    for whole in (WHOLE, 0):
        pairs = [f"{name} = {show(a, whole=whole)}" for name, a in zip(names, arguments, strict=False)]
        text = " and ".join(filter(None, [", ".join(pairs[:-1]), *pairs[-1:]]))
        if len(text) <= LONGEST:
            break
    return text


def _names(function: Callable) -> list[str]:
    try:
        kinds = inspect.signature(function).parameters.items()
    except ValueError:
        return []
    return [name for name, p in kinds if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
