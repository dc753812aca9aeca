"""Labs on description length: the slider merges where the closed form says."""

import math

import pytest
import torch

from pd_helpers import plots
from pd_helpers.course.description_length import ideas as dl
from pd_helpers.course.description_length.plots import co_activation
from pd_helpers.widgets import DescriptionLengthLab, SchattenLab


def two(both, first, second, neither):
    rows = [[1, 1]] * both + [[1, 0]] * first + [[0, 1]] * second + [[0, 0]] * neither
    return torch.tensor(rows).bool()


@pytest.mark.parametrize("counts", [(40, 5, 15, 40), (10, 30, 10, 0), (20, 8, 8, 64)])
def test_the_slider_merges_up_to_the_closed_form(counts):
    active = two(*counts)
    lab, n = DescriptionLengthLab(active), sum(counts)
    threshold = dl.merge_threshold((counts[0] + counts[1]) / n, (counts[0] + counts[2]) / n, counts[0] / n, C=2)
    last_merged = math.ceil(threshold / lab.alpha.step - 1e-9) - 1
    for steps in (0, last_merged, last_merged + 1, round(lab.alpha.max / lab.alpha.step)):
        lab.alpha.value = steps * lab.alpha.step
        assert lab.values.groups == (((0, 1),) if steps <= last_merged else ((0,), (1,)))


def test_the_pair_that_is_always_together_never_splits():
    lab = DescriptionLengthLab(two(30, 0, 0, 70))
    for alpha in (0.0, 1.0, lab.alpha.max):
        lab.alpha.value = alpha
        assert lab.values.groups == ((0, 1),)
    assert math.isinf(dl.merge_threshold(0.3, 0.3, 0.3, C=2))


def test_bits_are_the_description_length():
    active = torch.rand(60, 4, generator=torch.Generator().manual_seed(0)) > 0.6
    lab = DescriptionLengthLab(active)
    apart, together = ((0,), (1,), (2,), (3,)), ((0, 1, 2, 3),)
    for alpha in (0.0, 0.35, 2.0):
        lab.alpha.value = alpha
        assert lab.values.groups == dl.shortest(active, alpha)
        for bits, groups in (
            (lab.values.bits, lab.values.groups),
            (lab.values.bits_apart, apart),
            (lab.values.bits_together, together),
        ):
            assert bits == pytest.approx(dl.description_length(*dl.merge(active, groups), alpha, n_names=4))
        lines = lab.axes[0, 1].lines
        best = next(line for line in lines if line.get_label() == "best grouping")
        nearest = abs(best.get_xdata() - alpha).argmin()
        assert best.get_ydata()[nearest] == pytest.approx(lab.values.bits, abs=0.2)
        assert f"α = {alpha:.2f}" in lab.alt
        assert f"{lab.values.bits:.3f}" in lab.readout


def test_too_many_components_are_refused():
    with pytest.raises(ValueError, match="2 to 7 components"):
        DescriptionLengthLab(torch.ones(3, 9).bool())


def test_frames_mark_the_members_of_a_group():
    ax = co_activation(plots.figure(3, 3)[1][0, 0], two(2, 1, 1, 4), groups=((0, 1),))
    assert len(ax.patches) == 4
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0 A", "1 A"]
    assert [text.get_text() for text in ax.texts] == ["38", "25", "25", "38"]


def norms(lab):
    """Both sums at the chosen exponent."""
    return lab.values.norm(lab.p.value), lab.values.factorised_norm(lab.p.value)


def test_the_schatten_lab_shows_both_norms():
    lab = SchattenLab(p=1.0, rank=1, turn=0.0)
    assert norms(lab) == pytest.approx((1, 1))
    lab.rank.value = 3
    assert norms(lab)[0] == pytest.approx(1 + 0.8 + 0.6)
    lab.turn.value = 45.0
    assert norms(lab)[1] == pytest.approx(2.4)  # mixing is free at exponent 1
    lab.p.value = 0.5
    halves = 2 * 0.9**0.5 + 2 * 0.3**0.5  # averages of 1 and 0.8, and of 0.6 and 0
    assert norms(lab) == pytest.approx((1 + 0.8**0.5 + 0.6**0.5, halves))
    lines = {line.get_label(): line for line in lab.axes[0, 1].lines}
    for label, end in (("singular values, eq. 19", 1 + 0.8**2 + 0.6**2), ("factors, eq. 22", 2 * 0.9**2 + 2 * 0.3**2)):
        assert lines[label].get_ydata()[-1] == pytest.approx(end)  # at exponent 2
    lab.p.value = 0.05
    assert norms(lab)[0] == pytest.approx(3, abs=0.05)
    assert "rank 3" in lab.alt


def test_the_factors_multiply_to_the_matrix_that_the_sliders_describe():
    lab = SchattenLab(rank=2, turn=30.0)
    assert torch.linalg.svdvals(lab.matrix()).tolist() == pytest.approx([1, 0.8, 0, 0], abs=1e-7)
    U, V = dl.turned_factors(lab.matrix(), 30.0)
    torch.testing.assert_close(U @ V, lab.matrix())
    torch.testing.assert_close(lab.values.factor_lengths, U.norm(dim=0) * V.norm(dim=1))


def test_with_noise_the_smallest_exponents_count_everything():
    lab = SchattenLab(p=0.05, rank=2)
    lab.noise.value = 0.01
    assert norms(lab)[0] > 3  # of a matrix of rank 2
