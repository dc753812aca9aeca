"""The type checker of the tests: beartype, where a whole number will do for a float, as everywhere in Python."""

from collections.abc import Callable

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable) -> Callable:
    """The function with its arguments and result checked at every call.

    Functions inside functions are left alone: they would be decorated anew at every call of the outer one, which
    took half the time of every training in the tests.
    """
    return function if "<locals>" in function.__qualname__ else _checked(function)
