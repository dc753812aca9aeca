"""Work on the entries of a sparse table that are on, and on no others.

Batch top-k leaves k · batch of batch · C pairs (row, component), and few outputs of a toy model are above zero. What
is off contributes exact zeros, so leaving it out changes nothing; under top-k the cost then no longer grows with C.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


class Pairs:
    """The entries (row, group) of a Boolean table that are on, listed group by group.

    Attributes: rows (groups, slots), the row of each entry; groups with fewer entries than the fullest are padded
    with the number of rows, which stands for a row of zeros.
    """

    def __init__(self, on: Bool[Tensor, "rows groups"]):
        self.n_rows, n_groups = on.shape
        counts = on.sum(dim=0)
        group, row = on.T.nonzero(as_tuple=True)  # in order of groups
        slot = torch.arange(len(row), device=on.device) - (counts.cumsum(dim=0) - counts)[group]
        self.rows = row.new_full((n_groups, int(counts.max())), self.n_rows)
        self.rows[group, slot] = row

    def gather(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "groups slots d"]:
        """The row of each entry, once for every group it is on in."""
        return F.pad(x, (0, 0, 0, 1)).index_select(0, self.rows.flatten()).unflatten(0, self.rows.shape)

    def add(self, values: Float[Tensor, "groups slots d"]) -> Float[Tensor, "rows d"]:
        """The sum over the groups of each row; the opposite of `gather`."""
        sums = values.new_zeros(self.n_rows + 1, values.shape[-1])
        return sums.index_add(0, self.rows.flatten(), values.flatten(0, 1))[:-1]
