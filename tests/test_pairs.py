"""Work on the entries that are on equals work on all of them with the others zeroed."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import SHARP, draw

from pd_helpers.core.shortcuts.active_pairs import SLOTS, Pairs


@settings(deadline=None, max_examples=60)
@given(
    rows=st.sampled_from([1, 5, 64, 65, 200]), groups=st.integers(1, 5), share=st.floats(-3, 3), seed=st.integers(0, 9)
)
def test_gathering_transforming_and_adding_equals_the_masked_sum(rows, groups, share, seed):
    on = draw(rows, groups, seed=seed) > share  # from all on to none
    x, matrices = draw(rows, 3, seed=seed + 1), draw(groups, 3, 2, seed=seed + 2)
    pairs = Pairs(on)
    truth = torch.einsum("rg,ri,gio->ro", on.double(), x, matrices)
    torch.testing.assert_close(pairs.add(pairs.gather(x) @ pairs.of(matrices)), truth, **SHARP)
    assert (pairs.rows < rows).sum() == on.sum()
    slots = pairs.rows.shape[1]
    assert slots <= SLOTS
    assert len(pairs.rows) == sum(-(-int(count) // slots) for count in on.sum(dim=0))  # no more blocks than needed


def test_gradients_reach_the_rows_that_were_gathered():
    on = torch.tensor([[True, True], [False, True], [False, False]])
    x = draw(3, 2).requires_grad_()
    pairs = Pairs(on)
    weights = draw(2, 2, 2, seed=1)
    (grad,) = torch.autograd.grad((pairs.gather(x) * weights).sum(), x)
    torch.testing.assert_close(
        grad, torch.stack([weights[0, 0] + weights[1, 0], weights[1, 1], torch.zeros(2)]).double()
    )
