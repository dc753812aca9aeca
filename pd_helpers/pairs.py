"""Work on the entries of a sparse table that are on, and on no others.

Batch top-k leaves k · batch of batch · C pairs (row, component), and few outputs of a toy model are above zero. What
is off contributes exact zeros, so leaving it out changes nothing. Under top-k a masked forward pass then costs the
same for any C.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

SLOTS = 64
"""Most entries in a block: enough for a good matrix product, few enough that padding is cheap."""

SMALL = 2**12
"""In a table of no more entries, finding those that are on costs more than computing all."""


def worthwhile(on: Bool[Tensor, "rows groups"]) -> bool:
    """Whether `Pairs` of this table save time: not of a small one, nor on a GPU, where static shapes win."""
    return on.device.type == "cpu" and on.numel() > SMALL


class Pairs:
    """The entries (row, group) of a Boolean table that are on, in blocks of one group each.

    Attributes: rows (blocks, slots), the row of each entry, where the number of rows pads blocks that are not full and
    stands for a row of zeros; groups (blocks,), the group of each block.
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
        """The row of each entry, once for every group it is on in."""
        return F.pad(x, (0, 0, 0, 1)).index_select(0, self.rows.flatten()).unflatten(0, self.rows.shape)

    def of(self, matrices: Float[Tensor, "groups d d2"]) -> Float[Tensor, "blocks d d2"]:
        """The matrix of each block's group."""
        return matrices.index_select(0, self.groups)

    def add(self, values: Float[Tensor, "blocks slots d"]) -> Float[Tensor, "rows d"]:
        """The sum over the groups of each row; the opposite of `gather`."""
        sums = values.new_zeros(self.n_rows + 1, values.shape[-1])
        return sums.index_add(0, self.rows.flatten(), values.flatten(0, 1))[:-1]
