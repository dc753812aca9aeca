"""Sparse features: how often they are on, what values they take, and that a seed decides them."""

import math

import pytest
import torch
from torch import Generator

from pd_helpers.targets.features import SparseFeatures, one_hot

N = 200_000
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def sample(p, n_features=5, rows=N // 5, seed=0, **limits):
    return SparseFeatures(n_features, p, **limits)(rows, Generator().manual_seed(seed))


@pytest.mark.parametrize("p", [0.0005, 0.003, 0.004, 0.05, 0.5, 0.9])
def test_a_feature_is_on_with_probability_p(p):
    on = (sample(p) != 0).sum().item()
    assert abs(on - N * p) < 5 * math.sqrt(N * p * (1 - p))  # 5 binomial standard deviations


@pytest.mark.parametrize("p", [0.002, 0.05, 0.5, 1.0])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 5.0)])
def test_values_that_are_on_are_uniform_on_the_range(p, low, high):
    x = sample(p, low=low, high=high)
    on = ((x[x != 0] - low) / (high - low)).double()
    assert on.min() >= 0
    assert on.max() <= 1 + 1e-6
    n = len(on)
    assert abs(on.mean() - 1 / 2) < 5 * math.sqrt(1 / 12 / n)
    assert abs(on.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / n)  # var((u - 1/2)²) = 1/80 - 1/144 = 1/180
    for quartile in (0.25, 0.5, 0.75):
        below = (on < quartile).double().mean()
        assert abs(below - quartile) < 5 * math.sqrt(quartile * (1 - quartile) / n)


def test_small_probabilities_still_give_values_with_full_resolution():
    x = sample(1e-4, n_features=1, rows=2_000_000)
    on = x[x != 0]
    assert len(on) > 100
    assert len(on.unique()) == len(on)  # u / p alone would leave only 2²⁴ p ≈ 1700 different values


def test_features_are_independent_of_each_other():
    on = (sample(0.3, n_features=2, rows=N) != 0).double()
    both = (on[:, 0] * on[:, 1]).mean()
    assert abs(both - 0.09) < 5 * math.sqrt(0.09 * 0.91 / N)


def test_probability_zero_gives_zeros_and_one_gives_none():
    assert not sample(0.0, rows=100).any()
    assert (sample(1.0, rows=100) != 0).all()


def test_a_seed_gives_the_same_rows_again_and_another_seed_others():
    assert torch.equal(sample(0.5, rows=10, seed=3), sample(0.5, rows=10, seed=3))
    assert not torch.equal(sample(0.5, rows=10, seed=3), sample(0.5, rows=10, seed=4))


def test_a_generator_moves_on_between_batches():
    features, draw = SparseFeatures(5, 0.5), Generator().manual_seed(0)
    assert not torch.equal(features(10, draw), features(10, draw))


@pytest.mark.parametrize("device", DEVICES)
def test_rows_are_drawn_on_the_generators_device(device):
    x = SparseFeatures(4, 0.5)(7, Generator(device))
    assert x.device.type == device
    assert x.shape == (7, 4)


def test_one_hot_has_one_feature_a_row():
    assert one_hot(2, 0.75).tolist() == [[0.75, 0.0], [0.0, 0.75]]
