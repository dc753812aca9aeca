"""Description length against bits counted by hand, thresholds against brute force."""

import math

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from networks import SHARP, draw

from pd_helpers.core import losses
from pd_helpers.course.description_length import ideas as dl
from pd_helpers.course.description_length.plots import trade_off
from pd_helpers.course.kit import partitions

TABLE = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]]).bool()


def pair(both, first, second, neither):
    """Activity of two components with these numbers of inputs of each kind."""
    rows = [[1, 1]] * both + [[1, 0]] * first + [[0, 1]] * second + [[0, 0]] * neither
    return torch.tensor(rows).bool()


def test_bits_counted_by_hand():
    # 2, 3, 2 and 0 active of 4 components: 7 names of 2 bits in 4 inputs; ranks 1, 1, 2, 1: 2 + 4 + 3 numbers
    ranks = torch.tensor([1, 1, 2, 1])
    assert dl.minimality(TABLE) == 7 / 4
    assert dl.simplicity(TABLE, ranks) == 9 / 4
    assert dl.description_length(TABLE, ranks, alpha=3.0) == 2 * 7 / 4 + 3 * 9 / 4
    assert dl.description_length(TABLE, ranks, alpha=0.0, n_names=16) == 4 * 7 / 4


def test_a_merged_group_is_active_where_any_member_is_and_has_all_their_ranks():
    on, ranks = dl.merge(TABLE, ((0, 1), (2, 3)))
    assert on.int().tolist() == [[1, 0], [1, 1], [0, 1], [0, 0]]
    assert ranks.tolist() == [2, 2]


def test_numbers_of_partitions_are_bells():
    assert [len(partitions.partitions(n)) for n in range(1, 7)] == [1, 2, 5, 15, 52, 203]
    for groups in partitions.partitions(5):
        assert sorted(c for group in groups for c in group) == list(range(5))
    assert len(set(partitions.partitions(6))) == 203


counts = st.integers(0, 12)


@given(both=counts, first=counts, second=counts, neither=counts, C=st.integers(2, 64), alpha=st.floats(0, 30))
def test_two_components_merge_exactly_below_the_closed_form(both, first, second, neither, C, alpha):
    active = pair(both, first, second, neither)
    assume(len(active))
    n = len(active)
    threshold = dl.merge_threshold((both + first) / n, (both + second) / n, both / n, C)
    assume(math.isinf(threshold) or abs(alpha - threshold) > 1e-6)
    merged = dl.shortest(active, alpha, n_names=C) == ((0, 1),)
    assert merged == (alpha < threshold)


def test_limits_of_the_threshold():
    assert dl.merge_threshold(0.3, 0.3, 0.3, C=4) == math.inf  # always together: merged whatever α
    assert dl.merge_threshold(0.3, 0.3, 0.0, C=4) == 0.0  # never: apart whatever α
    assert dl.merge_threshold(0.5, 0.25, 0.125, C=16) == pytest.approx(0.125 * 4 / 0.5)


def test_everything_that_meets_merges_at_zero_and_only_the_inseparable_stay_merged():
    active = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).bool()
    assert dl.shortest(active, 0.0) == ((0, 1, 2), (3,))
    assert dl.shortest(active, 1e6) == ((0, 1), (2,), (3,))


def test_the_shortest_is_no_longer_than_any_other():
    active = draw(40, 5) > 0.5
    for alpha in (0.1, 0.5, 1.0, 3.0):
        best = dl.merge(active, dl.shortest(active, alpha))
        all_bits = [dl.description_length(*dl.merge(active, g), alpha, n_names=5) for g in partitions.partitions(5)]
        assert dl.description_length(*best, alpha, n_names=5) == pytest.approx(min(all_bits))


def test_schatten_by_hand():
    P = torch.diag(torch.tensor([3.0, 4.0, 0.0])).double()
    assert dl.schatten(P, 1.0).item() == pytest.approx(7)
    assert dl.schatten(P, 2.0).item() == pytest.approx(25)
    assert dl.schatten(torch.stack([P, 2 * P]), 0.5).tolist() == pytest.approx(
        [3**0.5 + 2, 2**0.5 * (3**0.5 + 2)], abs=1e-6
    )


def test_rounding_is_not_rank():
    P = torch.outer(draw(4), draw(5, seed=1))  # its other singular values are about 1e-17, not 0
    assert dl.schatten(P, 1e-6).item() == pytest.approx(1, abs=1e-4)
    assert dl.schatten(P + 1e-6 * draw(4, 5, seed=2), 1e-6).item() == pytest.approx(4, abs=1e-3)
    assert dl.schatten(torch.zeros(2, 3), 0.5) == 0


@pytest.mark.parametrize("degrees", [0.0, 20.0, 45.0])
def test_turned_factors_multiply_to_the_matrix_and_average_singular_values(degrees):
    P = draw(5, 4)
    U, V = dl.turned_factors(P, degrees)
    torch.testing.assert_close(U @ V, P, **SHARP)
    sigma, share = torch.linalg.svdvals(P), math.cos(math.radians(degrees)) ** 2
    first, second = share * sigma[0] + (1 - share) * sigma[1], (1 - share) * sigma[0] + share * sigma[1]
    lengths = U.norm(dim=0) * V.norm(dim=1)
    torch.testing.assert_close(lengths[:2], torch.stack([first, second]), **SHARP)


def test_mixing_costs_below_exponent_one_nothing_at_one_and_pays_above():
    P = draw(5, 4)
    for p, sign in ((0.5, 1), (1.0, 0), (1.5, -1)):
        U, V = dl.turned_factors(P, 45.0)
        gap = (losses.schatten(U[None], V[None], p)[0] - dl.schatten(P, p)).item()
        assert gap == pytest.approx(0, abs=1e-12) if sign == 0 else sign * gap > 1e-3
        U, V = dl.turned_factors(P, 0.0)
        torch.testing.assert_close(losses.schatten(U[None], V[None], p)[0], dl.schatten(P, p), **SHARP)


def test_the_trade_off_draws_the_line_of_the_shortest_cut_and_names_the_others():
    cuts = {"short": (1.0, 2.0), "long": (2.0, 3.0), "off": (1.0, 100.0)}
    ax = trade_off(plt.figure().subplots(), cuts, alpha=2.0)
    (line, *points) = ax.lines
    assert line.get_xydata().tolist() == [[0.0, 4.0], [2.0, 0.0]]
    assert [point.get_xydata().tolist() for point in points] == [[[1.0, 2.0]], [[2.0, 3.0]]]
    names = {text.get_text() for text in ax.texts}
    assert {"short", "long"} < names
    assert any("off" in name and "above" in name for name in names)
