"""The picture of the three demands: its numbers show what its titles say (notebook 00)."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

from pd_helpers.course.start_here import plots


def test_the_picture_shows_what_it_says():
    axes = plt.figure().subplots(1, 3)
    plots.three_demands(list(axes))
    assert [ax.get_title().split(":")[0] for ax in axes] == ["faithful", "minimal", "simple"]
    assert plots.USED.any(axis=0).all()
    assert (plots.USED.sum(axis=1) <= 2).all()
    assert sum(text.get_text() == "on" for text in axes[1].texts) == plots.USED.sum()
    product = max((image.get_array() for image in axes[2].images), key=np.size)
    assert np.linalg.matrix_rank(product) == 1


def test_the_chain_of_components_ends_where_their_sum_does():
    axes = plt.figure().subplots(1, 3)
    plots.three_demands(list(axes))
    whole, *steps = [text for text in axes[0].texts if text.arrow_patch is not None]
    assert np.allclose(whole.xyann, steps[0].xyann)
    assert np.allclose(whole.xy, steps[-1].xy)
    assert all(np.allclose(one.xy, next_one.xyann) for one, next_one in pairwise(steps))
