"""The colours of the figures, as a reader with normal sight sees them and as one without red or green cones does."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from pd_helpers.plots import page

# Linear RGB as seen with a kind of cone missing: Machado, Oliveira and Fernandes 2009, severity 1.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # from linear sRGB


def linear(color) -> np.ndarray:
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(color) -> float:
    """WCAG's contrast with white paper."""
    return 1.05 / (float(XYZ[1] @ linear(color)) + 0.05)


def lab(color, sight: str) -> np.ndarray:
    """CIELAB, whose distances are about 1 where two colours can just be told apart side by side."""
    t = XYZ @ np.clip(np.array(SIGHT[sight]) @ linear(color), 0, 1) / XYZ.sum(axis=1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(a, b, sight: str = "normal") -> float:
    return float(np.linalg.norm(lab(a, sight) - lab(b, sight)))


def test_the_measures_on_known_colours():
    assert contrast("white") == pytest.approx(1)
    assert contrast("black") == pytest.approx(21)
    assert contrast("#767676") == pytest.approx(4.54, abs=0.01)  # the palest grey that WCAG lets text have
    assert distance("black", "white") == pytest.approx(100, abs=0.1)
    assert distance("#c00000", "#5f6a00", "deuteranopia") < distance("#c00000", "#5f6a00") / 3


@pytest.mark.parametrize("sight", SIGHT)
def test_the_first_five_components_are_told_apart(sight):
    assert min(distance(a, b, sight) for a, b in combinations(page.COLORS[:5], 2)) > 10


@pytest.mark.parametrize("sight", SIGHT)
def test_positive_and_negative_weights_are_told_apart(sight):
    assert distance(page.POSITIVE, page.NEGATIVE, sight) > 40


def test_contrast_with_the_paper():
    assert contrast(page.GREY) >= 4.5  # text
    assert min(contrast(color) for color in (page.POSITIVE, page.NEGATIVE)) >= 3  # lines and areas
    assert min(contrast(page.VIRIDIS(share)) for share in np.linspace(0, 1, 50)) > 1.4  # and has labels or a scale
