"""Metrics on constructed decompositions whose values are known."""

import math

import pytest
import torch

from pd_helpers.analysis import metrics

# Two columns of lengths 5 and 2.
W = torch.tensor([[3.0, 0.0], [4.0, 2.0]])
FIRST = torch.tensor([[3.0, 0.0], [4.0, 0.0]])
SECOND = torch.tensor([[0.0, 0.0], [0.0, 2.0]])


def test_exact_columns_score_one():
    P = torch.stack([SECOND, FIRST, torch.zeros(2, 2)])
    assert metrics.mmcs(P, W) == pytest.approx(1)
    assert metrics.ml2r(P, W) == pytest.approx(1)


def test_halved_columns_keep_their_direction_and_lose_half_their_length():
    P = torch.stack([FIRST / 2, SECOND / 2])
    assert metrics.mmcs(P, W) == pytest.approx(1)
    assert metrics.ml2r(P, W) == pytest.approx(0.5)


def test_columns_shrunk_differently_average():
    P = torch.stack([FIRST * 0.8, SECOND * 0.4])
    cosines, ratios = metrics.best_match(P, W)
    torch.testing.assert_close(cosines, torch.ones(2))
    torch.testing.assert_close(ratios, torch.tensor([0.8, 0.4]))
    assert metrics.ml2r(P, W) == pytest.approx(0.6)


def test_shares_of_columns_by_hand():
    P = torch.stack(
        [0.75 * FIRST + 0.25 * SECOND, 0.25 * FIRST + 0.75 * SECOND, torch.tensor([[4.0, 9.0], [-3.0, 0.0]])]
    )
    wanted = torch.tensor([[0.75, 0.25], [0.25, 0.75], [0.0, 0.0]])  # the third is at right angles to both
    torch.testing.assert_close(metrics.column_shares(P, W), wanted)


@pytest.mark.parametrize(
    ("components", "own"),
    [
        ([FIRST, SECOND], 2),
        ([FIRST + SECOND], 0),  # one component for both
        ([FIRST / 2, FIRST / 2, SECOND], 1),  # the first column in two halves
        ([FIRST + 0.4 * SECOND, 0.6 * SECOND], 2),
    ],
)
def test_columns_of_their_own(components, own):
    assert metrics.own_columns(torch.stack(components), W) == own


def test_a_wrong_direction_lowers_mmcs():
    turned = torch.tensor([[5.0, 0.0], [0.0, 0.0]])  # cosine with (3, 4) is 3/5
    P = torch.stack([turned, SECOND])
    assert metrics.mmcs(P, W) == pytest.approx((0.6 + 1) / 2)
    assert metrics.ml2r(P, W) == pytest.approx(1)


def test_a_component_without_the_column_scores_zero_there():
    P = torch.stack([SECOND, torch.zeros(2, 2)])
    assert metrics.mmcs(P, W) == pytest.approx(1 / 2)
    assert metrics.ml2r(P, W) == pytest.approx(1 / 2)


def test_a_tiny_dead_component_can_win_by_direction():
    slightly_off = torch.tensor([[3.0, 0.0], [4.1, 0.0]])
    tiny = FIRST * 1e-4
    P = torch.stack([slightly_off, SECOND, tiny])
    cosines, ratios = metrics.best_match(P, W)
    assert cosines[0] == pytest.approx(1)
    assert ratios[0] == pytest.approx(1e-4, rel=1e-3)
    without = metrics.best_match(P[:2], W)[1]
    assert without[0] == pytest.approx(math.hypot(3, 4.1) / 5)


def test_the_opposite_direction_is_no_match():
    assert metrics.best_match(torch.stack([-FIRST, FIRST * 0.1]), W)[1][0] == pytest.approx(0.1)


def test_a_column_of_zeros_in_the_target_has_cosine_zero():
    cosines, _ = metrics.best_match(torch.stack([FIRST, SECOND]), SECOND)
    torch.testing.assert_close(cosines, torch.tensor([0.0, 1.0]))


G = torch.tensor([[0.9, 0.05, 0.0], [0.2, 0.1, 0.0], [0.0, 0.0, 0.0]])


def test_alive_means_above_a_tenth_on_some_row():
    assert metrics.alive(G).tolist() == [True, False, False]


def test_l0_is_the_mean_number_above_a_tenth():
    assert metrics.l0(torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])) == pytest.approx(1.0)
    assert metrics.l0(G) == pytest.approx(2 / 3)


def test_l0_with_weights_equals_repeated_rows():
    counts = torch.tensor([1, 1, 7])
    repeated = metrics.l0(G.repeat_interleave(counts, dim=0))
    assert repeated == pytest.approx(2 / 9)
    assert metrics.l0(G, counts.float()) == pytest.approx(repeated)


PERMUTED = torch.eye(4)[[2, 0, 3, 1]]


@pytest.mark.parametrize("extra", [0, 3])
def test_any_one_to_one_pattern_is_perfect(extra):
    assert metrics.identity_ci_error(torch.cat([PERMUTED, torch.zeros(4, extra)], dim=1)) == 0


@pytest.mark.parametrize(
    ("row", "column", "value", "errors"),
    [
        (0, 0, 0.3, 1),  # an extra importance above 0.1
        (0, 0, 0.05, 0),  # below: forgiven
        (0, 2, 0.5, 1),  # an importance that should be 1
        (0, 2, 0.95, 0),  # near enough
    ],
)
def test_every_perturbed_entry_counts_once(row, column, value, errors):
    g = PERMUTED.clone()
    g[row, column] = value
    assert metrics.identity_ci_error(g) == errors


def test_too_few_components_leave_inputs_unmatched():
    g = torch.cat([torch.eye(2), torch.zeros(1, 2)])  # three inputs, two components
    assert metrics.identity_ci_error(g) == 1


def test_a_component_for_two_inputs_counts_as_one_extra_and_one_missing():
    g = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert metrics.identity_ci_error(g) == 2


DENSE = torch.tensor([[0.0, 1.0, 0.9], [0.0, 0.9, 1.0]])


def test_dense_pattern_is_perfect_when_as_many_components_as_its_rank_are_active():
    assert metrics.identity_ci_error(DENSE, dense_rank=2) == 0


def test_dense_pattern_counts_spurious_and_missing_components():
    spurious = DENSE.clone()
    spurious[0, 0] = 0.2
    assert metrics.identity_ci_error(spurious, dense_rank=2) == 1
    missing = DENSE * torch.tensor([1.0, 1.0, 0.5])  # no entry of the third column reaches 0.9
    assert metrics.identity_ci_error(missing, dense_rank=2) == 1


def test_dense_pattern_with_fewer_components_than_its_rank():
    assert metrics.identity_ci_error(DENSE[:, 1:], dense_rank=3) == 1
