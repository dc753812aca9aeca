"""One torch thread for small work, where a second one would only wait.

This is exact: the same operations run in the same order, and with one thread their results do not even depend on how
many cores the machine has.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 2**17
"""Numbers in the largest operation of a training step below which a second thread costs more than it brings."""


@contextmanager
def threads_for(work: int) -> Iterator[None]:
    """Within the block, torch computes on one thread if its largest operations are on fewer than `SMALL` numbers.

    A step of the small toy models consists of dozens of operations of a few microseconds each, where waiting for a
    second thread costs more than it brings: up to 25 times more while the other core is busy. The caller's setting
    is back after the block.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if work < SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
