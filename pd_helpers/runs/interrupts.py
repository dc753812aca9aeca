"""Ctrl-C: it waits for the end of a training step, and says in one line how to go on."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A Ctrl-C that has been dealt with; the message says where training stopped and how to go on."""

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows in place of the calls that led here."""
        text = str(self)
        return [f"{text[:1].upper()}{text[1:]}."]


@contextmanager
def one_line(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """A Ctrl-C within the block becomes `Stopped`, with what `how_to_go_on` then says."""
    try:
        yield
    except Stopped:
        raise
    except KeyboardInterrupt:
        raise Stopped(f"stopped; {how_to_go_on()}") from None


@contextmanager
def waiting_interrupts() -> Iterator[Callable[[], bool]]:
    """Within the block, the first Ctrl-C does not interrupt; a second one does.

    The block gets a function that says whether Ctrl-C has been pressed, so that a training step can be completed before
    the program stops. Nothing changes if Ctrl-C has another handler already, or in a thread, where it cannot arrive.
    """
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
