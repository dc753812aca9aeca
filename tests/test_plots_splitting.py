"""Used against offered, as given."""

from pd_helpers import plots
from pd_helpers.course.spd_superposition.plots import against_room


def test_lines_hold_what_was_given():
    _, axes = plots.figure(4, 3)
    ax = against_room(axes[0, 0], {"flat": {10: 3, 40: 3}, "all": {20: 20, 80: 80}}, "alive", everything=True)
    flat, every, diagonal = ax.get_lines()
    assert (list(flat.get_xdata()), list(flat.get_ydata())) == ([10, 40], [3, 3])
    assert list(every.get_ydata()) == [20, 80]
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [10, 80]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["flat", "all", "all that is offered"]
    assert flat.get_marker() != every.get_marker()
    assert ax.get_xscale() == ax.get_yscale() == "log"
