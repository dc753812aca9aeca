"""The type checker of the tests: beartype, where a whole number will do for a float, as everywhere in Python."""

import inspect
from collections.abc import Callable

from beartype import BeartypeConf, beartype

_decorate = beartype(conf=BeartypeConf(is_pep484_tower=True))
_checked: dict[tuple, Callable] = {}


def check(function: Callable) -> Callable:
    """The function with its arguments and result checked at every call.

    jaxtyping hands over a stand-in that holds a signature and does nothing else. That of a function inside another
    comes anew at every call of the outer one, and making it took half the time of the tests' trainings. So the
    first that was made for a signature serves again.
    """
    key = function.__module__, function.__qualname__, str(inspect.signature(function))
    if key not in _checked:
        _checked[key] = _decorate(function)
    return _checked[key]
