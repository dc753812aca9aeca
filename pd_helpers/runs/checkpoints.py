"""Checkpoints on the way: training of any kind leaves one every few seconds, so that it can continue from there."""

import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path

from pd_helpers.core.machine.ranks import is_first
from pd_helpers.runs import files
from pd_helpers.runs.facts import Facts
from pd_helpers.runs.folders import has_checkpoint
from pd_helpers.runs.interrupts import Stopped, waiting_interrupts

Pack = Callable[[], tuple[files.Tensors, Facts]]
"""Gives the tensors and facts of a checkpoint."""


def with_checkpoints(
    steps: Generator[int, None, None], folder: Path | None, pack: Pack, *, of: str = "", how_to_go_on: str
) -> Iterator[int]:
    """The same steps, with a checkpoint at the beginning and every few seconds; without a folder, the steps alone.

    Ctrl-C waits for the end of a step and leaves a checkpoint of it; the message then says what the steps are steps of,
    and how to go on. Of several processes, rank 0 writes; the others wait for the end of its step, too.
    """
    if folder is None:
        yield from steps
        return
    checkpoints = Checkpoints(folder, pack)
    with waiting_interrupts() as interrupted, closing(steps):
        try:
            checkpoints.write()
            for step in steps:
                yield step
                if interrupted() and is_first():
                    checkpoints.write()
                    raise Stopped(f"stopped at step {step}{of}; {how_to_go_on}")
                checkpoints.write_if_due()
        except FloatingPointError:  # it would happen again
            files.discard_checkpoint(folder)
            raise
        except ConnectionError:  # rank 0 has stopped
            if interrupted():
                raise Stopped(f"stopped{of}; {how_to_go_on}") from None
            raise


class Checkpoints:
    """Writes checkpoints to one folder every few seconds.

    A full disk does not end the run: the previous checkpoint stays as it was, and there is one warning.
    """

    def __init__(self, folder: Path, pack: Pack):
        self.folder, self.pack = folder, pack
        self._due, self._warned = 0.0, False

    def write_if_due(self) -> None:
        """Write a checkpoint if the last one is old enough."""
        if time.perf_counter() >= self._due:
            self.write()

    def write(self) -> None:
        """Write a checkpoint now."""
        if not is_first():
            return
        began = time.perf_counter()
        try:
            files.write_checkpoint(self.folder, *self.pack())
        except OSError as error:
            if not self._warned:
                consequence = "the one before is kept" if has_checkpoint(self.folder) else "there is none yet"
                warnings.warn(
                    f"no checkpoint could be written to {str(self.folder)!r} ({error.strerror}): training continues, "
                    f"and {consequence}",
                    stacklevel=2,
                )
            self._warned = True
        ended = time.perf_counter()
        self._due = ended + max(files.CHECKPOINT_EVERY, (ended - began) / files.CHECKPOINT_SHARE)
