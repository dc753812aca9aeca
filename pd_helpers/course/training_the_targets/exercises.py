"""Exercises on the networks that are decomposed (notebook 03): their losses, their neurons, and weights by hand."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws

naive_loss = Check(
    "naive_loss",
    lambda n_features, n_neurons, p: (1 - n_neurons / n_features) * p / 6,
    lambda: [(4, 1, 0.8), (100, 50, 0.01), (40, 10, 0.05), (30, 12, 0.5), (10, 10, 0.3)],
    {
        "you count the features that have a neuron; only those without a neuron have an error.": lambda n, m, p: (
            m / n * p / 6
        ),
        "ReLU(x) is zero for half of the values, so the mean of its square is ⅙, not ⅓.": lambda n, m, p: (
            (1 - m / n) * p / 3
        ),
        "the loss is a mean over all outputs, and those with a neuron have no error.": lambda n, m, p: p / 6,
        "a feature that is off has no error: the feature probability p is missing.": lambda n, m, p: (1 - m / n) / 6,
        "that is the sum over the outputs; the loss is their mean.": lambda n, m, p: (n - m) * p / 6,
    },
)


def _neurons_add(W_E: Tensor, W_in: Tensor, W_out: Tensor, W_U: Tensor, i: int, value: float) -> Tensor:
    return (W_U[i] @ W_out) * F.relu(value * (W_in @ W_E[:, i]))


def _layers() -> list[tuple[Tensor, Tensor, Tensor, Tensor, int, float]]:
    """Weights of a layer with d_mlp neurons, an index of a feature, and its value."""
    W_E, W_in = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[1.0, -1.0], [1.0, -4.0]])
    W_out, W_U = torch.tensor([[1.0, 3.0], [-2.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    sizes = ((3, 4, 6), (4, 4, 3), (3, 5, 4))  # features, d_resid, d_mlp
    weights = draws(*(((d, n), (m, d), (d, m), (n, d)) for n, d, m in sizes))
    random = zip(weights, (0, 3, 2), (1.0, -0.4, 0.7), strict=True)
    return [(W_E, W_in, W_out, W_U, 1, -2.0), *((*tensors, i, value) for tensors, i, value in random)]


neurons_add = Check(
    "neurons_add",
    _neurons_add,
    _layers,
    {
        "a neuron that reads something negative is off: the ReLU is missing.": lambda W_E, W_in, W_out, W_U, i, value: (
            (W_U[i] @ W_out) * (W_in @ W_E[:, i]) * value
        ),
        "that is the contribution, whatever the feature's value; what does the neuron read at this value?": (
            lambda W_E, W_in, W_out, W_U, i, value: (W_U[i] @ W_out) * (W_in @ W_E[:, i])
        ),
        "the ReLU acts on what a neuron reads, before it writes; what it writes may be negative.": (
            lambda W_E, W_in, W_out, W_U, i, value: F.relu((W_U[i] @ W_out) * (W_in @ W_E[:, i]) * value)
        ),
        "that is how active each neuron is; multiply by what it writes to output i.": (
            lambda W_E, W_in, W_out, W_U, i, value: F.relu(value * (W_in @ W_E[:, i]))
        ),
        "the value goes inside the ReLU: a negative one switches other neurons on.": (
            lambda W_E, W_in, W_out, W_U, i, value: value * (W_U[i] @ W_out) * F.relu(W_in @ W_E[:, i])
        ),
        "return one number for each neuron; you added them up.": lambda W_E, W_in, W_out, W_U, i, value: _neurons_add(
            W_E, W_in, W_out, W_U, i, value
        ).sum(),
    },
)


def _ramp_weights(values: Tensor, step: float) -> Tensor:
    zero = torch.zeros(1)
    return torch.diff(torch.diff(values, prepend=zero) / step, prepend=zero)


ramp_weights = Check(
    "ramp_weights",
    _ramp_weights,
    lambda: [
        (torch.tensor([1.0, 3.0, 2.0]), 0.5),
        *((F, step) for (F,), step in zip(draws([(10,)], [(4,)], [(6,)]), (5 / 9, 0.8, 2.0), strict=True)),
    ],
    {
        "those are slopes. A ramp never ends, so each ramp only adds a *change* of slope.": lambda values, step: (
            torch.diff(values, prepend=torch.zeros(1)) / step
        ),
        "divide by the step: a slope is a difference over a distance.": lambda values, step: _ramp_weights(values, 1.0),
        "the first ramp must lift the line from 0 to F(0), one step before the first point; yours stays at 0.": (
            lambda values, step: torch.diff(torch.diff(values, prepend=values[:1]) / step, prepend=torch.zeros(1))
        ),
        "the first weight is missing: it makes the slope with which the line climbs from 0 to F(0).": (
            lambda values, step: _ramp_weights(values, step)[1:]
        ),
    },
)
