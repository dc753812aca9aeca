"""Checks for the notebooks' exercises: call one with your function, and it says what to look at.

    pdh.checks.batch_top_k(my_batch_top_k)

A check tries the function on random inputs. It says "not attempted yet" for the stub, accepts any correct way of
writing the function, and names the mistake where the answers are those of a well-known slip.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_helpers import attributions, causal_importance, losses, metrics

Solution = Callable[..., Any]


@dataclass(frozen=True)
class Check:
    """One exercise: its solution, inputs to try it on, and what the usual slips would answer."""

    name: str
    solution: Solution
    inputs: Callable[[], tuple[tuple, ...]]
    """Makes the argument tuples to try, from a fixed seed."""
    slips: Mapping[str, Solution] = field(default_factory=dict)
    """What went wrong → a function that gets it wrong in that way."""

    def __call__(self, attempt: Solution) -> None:
        """Print how the attempt did."""
        print(f"{self.name}: {self.verdict(attempt)}")

    def verdict(self, attempt: Solution) -> str:
        """One or two sentences: "not attempted yet", "correct …", or what is wrong."""
        cases = self.inputs()
        answers = []
        for arguments in cases:
            try:
                answers.append(attempt(*(a.clone() if isinstance(a, Tensor) else a for a in arguments)))
            except NotImplementedError:
                return "not attempted yet. Write the function above, run its cell, then run this one again."
            except Exception as error:  # whatever a student's function raises is an answer, not our failure
                return f"your function raised {type(error).__name__}: {error}"
        expected = [self.solution(*arguments) for arguments in cases]
        for answer, wanted in zip(answers, expected, strict=True):
            if answer is None:
                return "your function returned None; does it end with a return statement?"
            if isinstance(wanted, Tensor) and getattr(answer, "shape", None) != wanted.shape:
                shape = tuple(getattr(answer, "shape", ()))
                return f"your answer has shape {shape}, but {tuple(wanted.shape)} is wanted."
        if all(map(_same, answers, expected)):
            return f"correct on {len(cases)} random inputs. ✔"
        for slip, wrong in self.slips.items():
            if all(_same(answer, wrong(*arguments)) for answer, arguments in zip(answers, cases, strict=True)):
                return f"not yet: {slip}"
        worst = max(range(len(cases)), key=lambda i: _distance(answers[i], expected[i]))
        return (
            f"not yet: on one input the largest difference is {_distance(answers[worst], expected[worst]):.3g}. "
            "Work one small case by hand and compare."
        )


def _same(answer: Any, wanted: Any) -> bool:
    return _distance(answer, wanted) < 1e-5


def _distance(answer: Any, wanted: Any) -> float:
    try:
        answer, wanted = (torch.as_tensor(v).detach().to(torch.float64) for v in (answer, wanted))
    except (TypeError, ValueError, RuntimeError):
        return float("inf")
    if answer.shape != wanted.shape:
        return float("inf")
    gap = (answer - wanted).abs().max().item()
    return gap if gap == gap else float("inf")


def _draws(*shapes: tuple[int, ...], times: int = 3, uniform: bool = False) -> list[tuple[Tensor, ...]]:
    draw, make = torch.Generator().manual_seed(0), torch.rand if uniform else torch.randn
    return [tuple(make(shape, generator=draw) for shape in shapes) for _ in range(times)]


def _attribution(W: Tensor, b: Tensor, P: Tensor, x: Tensor) -> Tensor:
    z = W.T @ W @ x + b
    return ((P.T @ W @ x + W.T @ P @ x) * (z > 0)).square().mean().sqrt()


def _biased(shape: tuple[int, int]) -> list[tuple[Tensor, ...]]:
    return [(W, -0.2 * b.abs(), P, x.abs()) for W, b, P, x in _draws(shape, shape[1:], shape, shape[1:])]


length_ratio = Check(
    "length_ratio",
    lambda p, w: p.norm() / w.norm(),
    lambda: tuple(_draws((2,), (2,))),
    {
        "that is the ratio the wrong way round: the component's length goes on top.": lambda p, w: w.norm() / p.norm(),
        "that is the ratio of squared lengths; take the square root.": lambda p, w: (p @ p) / (w @ w),
        "that is the cosine: it says whether the directions agree, not the lengths.": lambda p, w: F.cosine_similarity(
            p, w, dim=0
        ),
    },
)

mechanism = Check(
    "mechanism",
    lambda W, c: torch.outer(W[:, c], torch.eye(W.shape[1])[c]),
    lambda: tuple((W, c) for (W,), c in zip(_draws((2, 5)), (0, 2, 4), strict=True)),
    {
        "that keeps every column but c; the mechanism keeps column c only.": lambda W, c: (
            W - torch.outer(W[:, c], torch.eye(W.shape[1])[c])
        ),
        "you return W itself; all columns but c must be zero.": lambda W, c: W,
    },
)

tms_output = Check(
    "tms_output",
    lambda W, b, x: F.relu(x @ W.T @ W + b),
    lambda: tuple(_draws((2, 5), (5,), (7, 5))),
    {
        "the ReLU is missing.": lambda W, b, x: x @ W.T @ W + b,
        "the bias is missing.": lambda W, b, x: F.relu(x @ W.T @ W),
        "the bias goes inside the ReLU.": lambda W, b, x: F.relu(x @ W.T @ W) + b,
    },
)

batch_top_k = Check(
    "batch_top_k",
    lambda A, k: attributions.batch_top_k(A, k).float(),
    lambda: tuple((A, k) for (A,), k in zip(_draws((6, 4), uniform=True), (4, 6, 9), strict=True)),
    {
        "you take the top of every row; batch top-k takes the top of the whole batch.": lambda A, k: torch.zeros_like(
            A
        ).scatter(1, A.topk(max(1, round(k / len(A))), dim=1).indices, 1.0),
        "you keep the smallest attributions; keep the largest.": lambda A, k: attributions.batch_top_k(
            A.max() + 1 - A, k
        ).float(),
        "you keep the attributions themselves; the mask holds only 0 and 1.": lambda A, k: (
            A * attributions.batch_top_k(A, k)
        ),
    },
)

attribution = Check(
    "attribution",
    _attribution,
    lambda: tuple(_biased((2, 5))),
    {
        "W is used twice (W and Wᵀ), so moving it along P changes the output in two places; you have only one.": (
            lambda W, b, P, x: ((W.T @ P @ x) * (W.T @ W @ x + b > 0)).square().mean().sqrt()
        ),
        "W is used twice (W and Wᵀ); you have only the second use, Pᵀ.": lambda W, b, P, x: (
            ((P.T @ W @ x) * (W.T @ W @ x + b > 0)).square().mean().sqrt()
        ),
        "where the ReLU is off the output does not move: multiply by (z > 0).": lambda W, b, P, x: (
            (P.T @ W @ x + W.T @ P @ x).square().mean().sqrt()
        ),
        "eq. 8 takes the root of the mean square over outputs; you summed.": lambda W, b, P, x: (
            ((P.T @ W @ x + W.T @ P @ x) * (W.T @ W @ x + b > 0)).square().sum().sqrt()
        ),
        "the square root is missing.": lambda W, b, P, x: _attribution(W, b, P, x) ** 2,
    },
)

schatten = Check(
    "schatten",
    losses.schatten,
    lambda: tuple((U, V, p) for (U, V), p in zip(_draws((5, 2, 3), (5, 3, 4)), (1.0, 0.9, 0.5), strict=True)),
    {
        "the exponent acts on lengths: ‖U‖²‖V‖² is already squared, so it is raised to p/2.": lambda U, V, p: (
            (U.square().sum(1) * V.square().sum(2)).pow(p).sum(-1)
        ),
        "raise to the power before summing over r, not after.": lambda U, V, p: (
            (U.square().sum(1) * V.square().sum(2)).sum(-1).pow(p / 2)
        ),
        "you summed the entries' absolute values; the lengths ‖U_cr‖ and ‖V_cr‖ are Euclidean.": lambda U, V, p: (
            (U.abs().sum(1) * V.abs().sum(2)).pow(p).sum(-1)
        ),
    },
)

sample_masks = Check(
    "sample_masks",
    lambda g, r: g + (1 - g) * r,
    lambda: tuple(_draws((6, 4), (6, 4), uniform=True)),
    {
        "that is uniform on [0, g]; a mask is uniform on [g, 1].": lambda g, r: g * r,
        "that ignores r: the mask must be random, except where g is 1.": lambda g, r: g,
        "that is the complement: importance 1 must give the mask 1.": lambda g, r: 1 - g + g * r,
        "that exceeds 1; the random part may only fill the gap 1 - g.": lambda g, r: g + r,
    },
)

lower_leaky = Check(
    "lower_leaky",
    causal_importance.lower_leaky,
    lambda: tuple((2 * x,) for (x,) in _draws((12,))),
    {
        "that is the hard sigmoid without a leak: below 0 the slope is 0.01.": lambda x: x.clamp(0, 1),
        "the leak is on the wrong side: it belongs below 0.": causal_importance.upper_leaky,
        "above 1 the value stays 1.": lambda x: torch.where(x < 0, 0.01 * x, x),
    },
)

importance_minimality = Check(
    "importance_minimality",
    lambda g, p: g.pow(p).sum(dim=-1).mean(),
    lambda: tuple((g, p) for (g,), p in zip(_draws((6, 4), uniform=True), (1.0, 2.0, 0.9), strict=True)),
    {
        "sum over subcomponents, mean over the batch; you took the mean over both.": lambda g, p: g.pow(p).mean(),
        "sum over subcomponents, mean over the batch; you summed over both.": lambda g, p: g.pow(p).sum(),
        "the exponent p is missing.": lambda g, p: g.sum(dim=-1).mean(),
    },
)

mmcs = Check(
    "mmcs",
    lambda P, W: metrics.mmcs(P, W),
    lambda: tuple(_draws((6, 2, 5), (2, 5))),
    {
        "take the maximum over components before the mean over columns; you took the mean over both.": lambda P, W: (
            F.cosine_similarity(P, W[None], dim=1).mean().item()
        ),
        "the cosine runs along columns (down the hidden dimensions), not along rows.": lambda P, W: (
            F.cosine_similarity(P, W[None], dim=2).amax(0).mean().item()
        ),
        "divide by both lengths: that is a dot product, not a cosine.": lambda P, W: (
            (P * W).sum(1).amax(0).mean().item()
        ),
    },
)

naive_loss = Check(
    "naive_loss",
    lambda n_features, n_neurons, p: (1 - n_neurons / n_features) * p / 6,
    lambda: ((100, 50, 0.01), (40, 10, 0.05), (30, 12, 0.5)),
    {
        "that counts the features that have a neuron; only those without one are wrong.": lambda n, m, p: m / n * p / 6,
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


neurons_add = Check(
    "neurons_add",
    _neurons_add,
    lambda: tuple(
        (*weights, i, value)
        for weights, i, value in zip(_draws((8, 5), (6, 8), (8, 6), (5, 8)), (0, 3, 4), (1.0, -0.4, 0.7), strict=True)
    ),
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
    },
)


def _ramp_weights(values: Tensor, step: float) -> Tensor:
    zero = torch.zeros(1)
    return torch.diff(torch.diff(values, prepend=zero) / step, prepend=zero)


ramp_weights = Check(
    "ramp_weights",
    _ramp_weights,
    lambda: tuple((values, step) for (values,), step in zip(_draws((10,)), (5 / 9, 0.5, 2.0), strict=True)),
    {
        "those are slopes. A ramp goes on for ever, so each only adds a *change* of slope.": lambda values, step: (
            torch.diff(values, prepend=torch.zeros(1)) / step
        ),
        "divide by the step: a slope is a difference over a distance.": lambda values, step: _ramp_weights(values, 1.0),
        "the first ramp must lift the line from 0 to F(0), one step before the first point; yours stays at 0.": (
            lambda values, step: torch.diff(torch.diff(values, prepend=values[:1]) / step, prepend=torch.zeros(1))
        ),
    },
)

CHECKS = {
    check.name: check
    for check in (
        length_ratio,
        mechanism,
        tms_output,
        batch_top_k,
        attribution,
        schatten,
        sample_masks,
        lower_leaky,
        importance_minimality,
        mmcs,
        naive_loss,
        neurons_add,
        ramp_weights,
    )
}
"""Name → check, for all exercises."""
