"""Compute the all-zero inputs of a batch once instead of many times.

Most rows of sparse data are all zero (77% of them for TMS 5-2). This saving is exact where an all-zero row reaches
every decomposed layer as zeros: because V 0 = 0, the output then depends on no mask and no component, so the
reconstruction losses and attributions of such rows are exactly zero, and everything else about them is the same for
all. One of them is kept and counted.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class Batch(NamedTuple):
    """The inputs of a batch that need computing."""

    rows: Float[Tensor, "rows d_in"]
    """Different inputs; where empty rows were merged, the last one is all zero and stands for all of them."""
    counts: Float[Tensor, " rows"]
    """How many inputs of the batch each row stands for."""
    n_inputs: int
    """Number of inputs in the batch, which is what means divide by."""


class EmptyRows:
    """Merges the all-zero rows of batches for one network, if that changes nothing.

    `entering(x)` gives the activations that enter the decomposed layers: use → (rows, d_in).
    """

    def __init__(self, entering: Callable[[Tensor], Mapping[str, Tensor]]):
        self._entering = entering
        self._are_inert: bool | None = None  # found out on the first batch

    def merge(self, x: Float[Tensor, "batch d_in"]) -> Batch:
        """The batch with its all-zero rows merged into one, the last.

        All rows are returned where an all-zero row does not reach every layer as zeros, and on GPUs, where a changing
        number of rows costs more than it saves.
        """
        if self._are_inert is None:
            self._are_inert = not any(a.any() for a in self._entering(torch.zeros_like(x[:1])).values())
        if x.device.type != "cpu" or not self._are_inert:
            return Batch(x, x.new_ones(len(x)), len(x))
        rows = x[x.any(dim=-1)]
        counts = x.new_ones(len(rows) + 1)
        counts[-1] = len(x) - len(rows)
        return Batch(F.pad(rows, (0, 0, 0, 1)), counts, len(x))
