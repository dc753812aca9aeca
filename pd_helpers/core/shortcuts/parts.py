"""Compute a batch in parts: one after another in less memory, or at the same time on several devices.

    ∇ L(batch) = Σ_parts w ∇ L(part),    w = inputs of the part / inputs of the batch

This saving is exact, but for the order of sums, where a loss is a mean over inputs and the network computes each input
from itself alone. Random numbers are drawn for the whole batch, and each part takes those of its own rows, so that a
result depends neither on the number of parts nor on that of the processes (`ranks`) among which they are shared.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..components import ComponentModel
from ..machine.ranks import add_up
from ..networks.batches import Inputs, n_inputs, select
from ..networks.rows import close
from .empty_rows import Batch


def parts(batch: Batch, n: int, rank: int = 0, n_ranks: int = 1) -> list[Batch]:
    """What one of `n_ranks` processes computes of a batch: `n` parts, or as many as it has rows of its own.

    The parts are equally large, but for one row. A process that has no row of its own computes the first with weight
    zero, so that it draws the same numbers and has gradients of the same shapes as the others.
    """
    if n * n_ranks == 1:
        return [batch]
    bounds = [i * len(batch.counts) // (n * n_ranks) for i in range(rank * n, (rank + 1) * n + 1)]
    own = [_part(batch, start, stop) for start, stop in pairwise(bounds) if start < stop]
    return own or [_part(batch, 0, 1, weight=0.0)]


class Part(Batch):
    """Some rows of a larger batch, and where they stand in it."""

    weight: float
    start: int
    n_rows: int


def _part(batch: Batch, start: int, stop: int, weight: float | None = None) -> Part:
    counts = batch.counts[start:stop]
    n = stop - start if batch.divisor is None else int(counts.sum())
    part = Part(select(batch.rows, slice(start, stop)), counts, max(1, n))
    part.weight = n / batch.n_inputs if weight is None else weight
    part.start, part.n_rows = start, len(batch.counts)
    return part


def joined(parts: list[Batch], tables: list[Tensor]) -> Tensor:
    """The table (rows, …) of the whole batch, from those of its parts on all ranks."""
    if parts[0].n_rows is None:
        return tables[0]
    whole = tables[0].new_zeros(parts[0].n_rows, *tables[0].shape[1:])
    for part, table in zip(parts, tables, strict=True):
        if part.weight:
            whole[part.start : part.start + len(table)] = table
    add_up([whole])
    return whole


UNEVEN = (
    "the number of rows that the network makes of an input depends on the input, so that batches cannot be computed in "
    "parts; micro_batches=1, in one process, works"
)


class Share(NamedTuple):
    """The entries of a table that belong to a part of the batch; the last dimension of the table is that of C."""

    dim: int
    """Dimension of the inputs, counted from the end."""
    start: int
    """The first entry."""
    length: int
    """Number of entries."""
    whole: int
    """Number of entries of the whole batch."""

    def rand(self, g: Tensor, generator: torch.Generator) -> Tensor:
        """Random numbers for this part, (*rows, C) as g, of those that are drawn for the whole batch.

        Raises ValueError if g has another number of entries.
        """
        if g.shape[self.dim] != self.length:
            raise ValueError(UNEVEN)
        shape = list(g.shape)
        shape[self.dim] = self.whole
        r = torch.rand(shape, generator=generator, device=g.device, dtype=g.dtype)
        return r.narrow(self.dim, self.start, self.length).clone()  # so that the rest is freed


Layout = dict[str, tuple[int, int]]
"""Use → the dimension of the inputs in its tables (*rows, C), counted from the end, and how many entries of it an input
has, one after another; without the uses whose rows are the same for all inputs, such as positions."""


def layout(model: ComponentModel, x: Inputs) -> Layout:
    """Where the inputs stand among the rows of each use, found out by passing one of them twice and three times.

    Raises ValueError if a use has no rows then.
    """
    two, three = (model.rows(select(x, [0] * n)) for n in (2, 3))
    found = {}
    for use, rows in two.items():
        if not math.prod(rows):
            raise ValueError(UNEVEN)
        grown = [(i - len(rows) - 1, b - a) for i, (a, b) in enumerate(zip(rows, three[use], strict=True)) if a != b]
        found |= {use: grown[0]} if grown else {}
    return found


def shares(part: Batch, layout: Layout) -> dict[str, Share]:
    """Use → which entries of its tables belong to this part of a batch."""
    n = len(part.counts)
    return {use: Share(dim, part.start * k, n * k, part.n_rows * k) for use, (dim, k) in layout.items()}


def check_independent(model: ComponentModel, x: Inputs, remedy: str) -> None:
    """Raise ValueError unless the network answers each of these inputs, of which there are two or more, by itself as
    it does among the others.

    An input by itself is computed twice over, because a network may treat a batch of one in another way.
    """
    n = n_inputs(x)
    together = model.target_forward(x).output.reshape(n, -1)
    alone = [model.target_forward(select(x, [i, i])).output.reshape(2, -1)[0] for i in range(n)]
    if any(a.shape != b.shape or not close(a, b, together) for a, b in zip(together, alone, strict=True)):
        raise ValueError(
            f"the network computes an input from the others of its batch, which therefore cannot be computed in parts; "
            f"{remedy} works"
        )
