"""Calling a function that a student wrote: on copies, for a limited time, and with settings as they were before."""

import ctypes
import inspect
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from copy import deepcopy
from io import StringIO
from threading import Event, Thread
from typing import Any

import numpy as np
import torch

SHOWN = 1000
"""Characters of what one call prints that are shown."""

_STATES = (
    (torch.get_rng_state, torch.set_rng_state),
    (np.random.get_state, np.random.set_state),
    (random.getstate, random.setstate),
)
_SETTINGS = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, torch.set_default_device),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (sys.getrecursionlimit, sys.setrecursionlimit),
)


class NotAttemptedError(Exception):
    """The function is still the exercise's stub."""


class FailedError(Exception):
    """A call gave no answer; the message is a sentence for the student. `final` if further calls are of no use."""

    def __init__(self, sentence: str, final: bool = False):
        super().__init__(sentence)
        self.final = final


class _OutOfTime(BaseException):
    """Raised in the thread of a call that takes too long; no `except Exception` of the student's can catch it."""


class _Printed(StringIO):
    """What a call prints, up to a limit: a loop without end prints without end."""

    def write(self, text: str) -> int:
        super().write(text[: SHOWN - self.tell()])
        return len(text)


@contextmanager
def settings_kept() -> Iterator[None]:
    """Leave the states of global random generators, and the settings of torch and Python, as they are now."""
    states = [(put, get()) for get, put in _STATES]
    settings = [(get, put, get()) for get, put in _SETTINGS]
    try:
        yield
    finally:
        for put, state in states:
            put(state)
        for get, put, setting in settings:
            if get() != setting:
                put(setting)


def call(function: Callable, arguments: tuple, seconds: float) -> Any:
    """What a student's function returns for copies of these arguments.

    The call has a thread of its own, since that is the one way to give up on it on every system. Of what it prints,
    the beginning is printed when it ends.

    Raises:
        NotAttemptedError: If the function is still the stub.
        FailedError: If it cannot take the arguments, raises an error, or is not done after so many seconds.
        KeyboardInterrupt: If the user interrupts it.
    """
    with suppress(ValueError):  # some functions, such as those of NumPy, do not say what they take
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError as error:
            n = f"{len(arguments)} argument" + "s" * (len(arguments) != 1)
            raise FailedError(f"your function cannot be called with the exercise's {n}: {error}.", True) from None

    ends: list[tuple[Any, BaseException | None]] = []

    def work() -> None:
        threads = torch.get_num_threads()
        with suppress(_OutOfTime):
            try:
                ends.append((function(*deepcopy(arguments)), None))
            except BaseException as error:  # whatever it is, it belongs into the verdict
                ends.append((None, error))
            finally:
                if torch.get_num_threads() != threads:  # a thread has its own, which later threads would take over
                    torch.set_num_threads(threads)
                done.set()

    done, worker = Event(), Thread(target=work, daemon=True)
    with redirect_stdout(_Printed()) as printed:
        try:
            worker.start()
            until = time.monotonic() + seconds
            while not done.wait(0.05) and time.monotonic() < until:
                pass  # many short waits, so that an interrupt gets through on every system
        finally:
            _end(worker, done)
    if text := printed.getvalue().rstrip():
        print(text)
    answer, error = ends[0] if ends else (None, _OutOfTime())
    if error is not None:
        _explain(error, seconds)
    return answer


def _end(worker: Thread, done: Event) -> None:
    """Raise an error in a thread that still runs, more than once in case it catches the first; then leave it alone."""
    for _ in range(20):
        if done.is_set():
            return worker.join(1.0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident or 0), ctypes.py_object(_OutOfTime))
        done.wait(0.05)


def _explain(error: BaseException, seconds: float) -> None:
    """Raise what a call's error means for its verdict."""
    message = ""
    with suppress(Exception):  # an error of the student's own class may fail to say what it is
        message = str(error).strip().split("\n")[0]
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, NotImplementedError) and message in ("", "not attempted yet"):  # torch raises others
        raise NotAttemptedError
    if isinstance(error, _OutOfTime):
        raise FailedError(f"your function was not done after {seconds:g} seconds; does a loop in it never end?", True)
    if isinstance(error, SystemExit):
        raise FailedError("your function ends Python, with exit() or SystemExit; end it with return instead.", True)
    if isinstance(error, RecursionError):
        raise FailedError("your function calls itself without an end (RecursionError).", True)
    if len(message) > 200:
        message = message[:200].rsplit(" ", 1)[0] + " …"
    raise FailedError(f"your function raised {type(error).__name__}" + f": {message}" * bool(message))
