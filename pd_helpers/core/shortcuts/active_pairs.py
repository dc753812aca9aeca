"""Compute only the True entries of a mask.

Batch top-k keeps k · batch of the batch · C pairs (row, component), and few outputs of a toy model are above zero.
This saving is exact because a False entry contributes exactly zero to every sum. Under batch top-k a masked forward
pass then costs the same for any C.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

SLOTS = 64
"""The largest number of entries in a block: enough for an efficient matrix product, few enough for cheap padding."""

SMALL = 2**12
"""In a table of at most this many entries, finding the True ones costs more than computing all."""


def worthwhile(on: Bool[Tensor, "rows groups"]) -> bool:
    """Whether `Pairs` of this table save time: not if it is small, nor on a GPU, where fixed shapes are faster."""
    return on.device.type == "cpu" and on.numel() > SMALL


class Pairs:
    """The True entries (row, group) of a Boolean table, in blocks that belong to one group each.

    Attributes: n_rows, the number of rows of the table; rows (blocks, slots), the row of each entry, where the value
    `n_rows` fills up blocks and stands for a row of zeros; groups (blocks,), the group of each block.
    """

    def __init__(self, on: Bool[Tensor, "rows groups"]):
        self.n_rows = len(on)
        counts = on.sum(dim=0)
        slots = max(1, min(SLOTS, int(counts.max())))
        n_blocks = (counts + slots - 1) // slots  # of each group
        self.groups = torch.arange(len(counts), device=on.device).repeat_interleave(n_blocks)
        group, row = on.T.nonzero(as_tuple=True)  # in order of groups
        place = torch.arange(len(row), device=on.device)
        place += (slots * (n_blocks.cumsum(dim=0) - n_blocks) - (counts.cumsum(dim=0) - counts))[group]
        self.rows = row.new_full((len(self.groups) * slots,), self.n_rows).index_copy(0, place, row).view(-1, slots)

    def gather(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "blocks slots d"]:
        """The row of x that belongs to each entry; a row comes once for each of its groups."""
        return F.pad(x, (0, 0, 0, 1)).index_select(0, self.rows.flatten()).unflatten(0, self.rows.shape)

    def of(self, matrices: Float[Tensor, "groups d d2"]) -> Float[Tensor, "blocks d d2"]:
        """The matrix of each block's group."""
        return matrices.index_select(0, self.groups)

    def add(self, values: Float[Tensor, "blocks slots d"]) -> Float[Tensor, "rows d"]:
        """For each row, the sum of the values of its entries; this is the transpose of `gather`."""
        sums = values.new_zeros(self.n_rows + 1, values.shape[-1])
        return sums.index_add(0, self.rows.flatten(), values.flatten(0, 1))[:-1]
