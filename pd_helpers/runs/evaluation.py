"""What is measured of a finished run, on fresh data."""

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from pd_helpers.analysis import metrics
from pd_helpers.analysis.decomposed import Decomposed, first_layer
from pd_helpers.analysis.gated_functions import SERVED, alone
from pd_helpers.analysis.importance_matrices import hungarian_order, importance_matrix
from pd_helpers.analysis.induction import important
from pd_helpers.analysis.neuron_contributions import contributions, doubled, feature_components
from pd_helpers.analysis.scrubbing import scrub
from pd_helpers.core.components import ComponentModel
from pd_helpers.core.known_network import KnownNetwork
from pd_helpers.core.losses import faithfulness, output_loss
from pd_helpers.core.networks.batches import Inputs, n_inputs, tensors
from pd_helpers.core.training import generator
from pd_helpers.runs.sources import Source
from pd_helpers.targets.gated_functions import GatedNetwork
from pd_helpers.targets.induction import InductionNetwork
from pd_helpers.targets.pingpong import PingPong
from pd_helpers.targets.residual_mlp import ResidualMLP
from pd_helpers.targets.tms import TMS

N_EVALUATION = 4096
"""Rows on which a finished run is measured: one batch of SPD's size."""
FEWEST = 256
"""Inputs on which it is measured at least, however many rows each has."""
N_SCRUBBED = 8192
"""Inputs on which `known_target_metrics` measures what ablation does."""


LARGEST_COMPARED = 2**20
"""Numbers in the components of the first layer up to which MMCS and ML2R are compared, so that reading stays quick."""


BOUNDS = {
    "mmcs": (-1.001, 1.001),
    "mmcs_alive": (-1.001, 1.001),
    "ml2r": (0.0, math.inf),
    "ml2r_alive": (0.0, math.inf),
    "faithfulness": (0.0, math.inf),
    "recon": (-1e-6, math.inf),
    "unmasked_recon": (-1e-6, math.inf),
    "rounded_recon": (-1e-6, math.inf),
    "accuracy": (0.0, 1.0),
    "rounded_accuracy": (0.0, 1.0),
}
"""Metric → its least and its largest value, up to rounding."""


@torch.no_grad()
def evaluate(run: Decomposed) -> dict[str, Any]:
    """Measure a run on fresh data.

    Keys: `faithfulness`; `recon`, the error against the target's output (squared, or what `config.output_loss` says)
    with APD's active components or SPD's stochastic masks; `unmasked_recon`, the same with all components on, and
    `rounded_recon`, with those alone whose importance exceeds 0.1; `n_alive` and `l0`, each use → number, where `l0` is
    a mean over rows; for networks of the papers `mmcs` and `ml2r` of the first layer as published, `mmcs_alive` and
    `ml2r_alive` of its alive components only, and what `known_target_metrics` adds. There is a warning if features that
    count in MMCS never occur in the data. Raises ValueError for a run without data.
    """
    if run.data is None:
        raise ValueError("this run was loaded without its data; set run.data to the function that draws a batch")
    model = run.components
    draw = generator(run.seed, "evaluation", model.factors[0].device)
    compare = output_loss(run.method.config.output_loss)
    alive: dict[str, Tensor] = {}
    occurs: Tensor | None = None  # which numbers of an input are ever other than zero
    sizes: list[int] = []
    recon: dict[str, list[float]] = {"recon": [], "unmasked_recon": [], "rounded_recon": []}
    l0: dict[str, list[float]] = {use: [] for use in model.uses}
    for x in fresh_batches(run, draw):
        if isinstance(model.target, KnownNetwork):
            found = next(tensors(x)).flatten(0, -2).any(dim=0)
            occurs = found if occurs is None else occurs | found
        batch = run.method.merged(x)
        g = run.method.importances(batch.rows, batch.n_inputs)
        rounded = {use: (values > metrics.ALIVE).to(values.dtype) for use, values in g.items()}
        target_output = model.target_forward(batch.rows).output
        for masks, errors in zip((run.method.sample_masks(g, draw), None, rounded), recon.values(), strict=True):
            errors.append(compare(model(batch.rows, masks).output, target_output, batch.divisor).item())
        sizes.append(batch.n_inputs)
        for use, values in g.items():
            alive[use] = metrics.alive(values) | alive.get(use, False)
            l0[use].append(metrics.l0(values, batch.counts))
    shares = [n / sum(sizes) for n in sizes]
    results = {
        "faithfulness": model.faithfulness().item(),
        **{name: _mean(errors, shares) for name, errors in recon.items()},
        "n_alive": {use: int(values.sum()) for use, values in alive.items()},
        "l0": {use: _mean(values, shares) for use, values in l0.items()},
    }
    if occurs is not None:
        _warn_of_the_absent(occurs, sum(sizes))
    return _of_the_first_layer(model, alive) | results | known_target_metrics(run, draw)


def _warn_of_the_absent(occurs: Tensor, n_inputs: int) -> None:
    """Warn of features that never occur: no component can learn their columns, which count in MMCS all the same."""
    if n := int((~occurs).sum()):
        warnings.warn(
            f"{n} of {len(occurs)} features never occur in the {n_inputs} inputs on which the run is measured, and "
            "their columns count in MMCS and ML2R like all others",
            stacklevel=2,
        )


def _mean(values: list[float], shares: list[float]) -> float:
    return sum(value * share for value, share in zip(values, shares, strict=True))


def fresh_batches(run: Decomposed, draw: Generator) -> Iterator[Inputs]:
    """Inputs with about `N_EVALUATION` rows in all, and at least `FEWEST`.

    Where an input has many rows, they come in batches of a size that training could hold.
    """
    if not isinstance(run.data, Source):  # a run that was loaded does not know yet how many rows an input has
        run.components.target_forward(run.data(2, Generator(draw.device).manual_seed(0)))
    rows = run.components.rows_per_input
    n = N_EVALUATION if rows == 1 else max(FEWEST, N_EVALUATION // rows)
    size = n if rows == 1 else min(n, run.method.config.batch_size)
    of_own_size = isinstance(run.data, Source) and run.data.batch_size is not None
    n_seen = 0
    while n_seen < n:
        try:
            x = run.data(min(size, n - n_seen), draw)
        except ValueError:
            if n_seen == 0 or not (isinstance(run.data, Source) and run.data.one_pass):
                raise
            return  # an iterator is at its end
        yield x
        n_seen += n_inputs(x) if of_own_size or rows > 1 else n


def _of_the_first_layer(model: ComponentModel, alive: dict[str, Tensor]) -> dict[str, float]:
    """MMCS and ML2R, for a network of the papers: elsewhere the columns of W are no mechanisms that one looks for."""
    if not isinstance(model.target, KnownNetwork):
        return {}
    P, W = first_layer(model)
    P_alive = P[next(iter(alive.values()))]
    return {
        "mmcs": metrics.mmcs(P, W),
        "ml2r": metrics.ml2r(P, W),
        "mmcs_alive": metrics.mmcs(P_alive, W) if len(P_alive) else 0.0,
        "ml2r_alive": metrics.ml2r(P_alive, W) if len(P_alive) else 0.0,
    }


def known_target_metrics(run: Decomposed, generator: Generator) -> dict[str, Any]:
    """Metrics that need a target of the papers, decomposed in all of its layers; empty for other networks.

    `identity_ci_error`, where the ideal importances of every use are known; for residual MLPs `contribution_r` and,
    where components span layers, the means of `scrub`, `n_own`, the number of features with a component of their own,
    and `n_doubled`, the number of components that are first for two features or more; for the hand-written network
    `n_served`, the number of its functions that a component of their own computes alone with a relative error of at
    most 0.1 (`alone`). For induction networks `accuracy` and `rounded_accuracy`, the share of right answers of the
    target and of the components alone whose importance exceeds 0.1.
    """
    results: dict[str, Any] = {}
    if isinstance(run.target, InductionNetwork):
        return _accuracies(run, generator)
    if not isinstance(run.target, TMS | ResidualMLP | PingPong) or not set(run.target.layers) <= set(
        run.components.layers
    ):
        return results
    joint = run.method.spans_layers
    if run.target.ideal and not joint:
        g = importance_matrix(run)
        results["identity_ci_error"] = sum(
            metrics.identity_ci_error(torch.cat([g[use] for use in uses], dim=1), rank)
            for uses, rank in run.target.ideal.items()
        )
    if isinstance(run.target, GatedNetwork):
        if joint:
            served = (alone(run).errors <= SERVED).float()
            results["n_served"] = int(served[:, hungarian_order(served)].diagonal().sum())
    elif isinstance(run.target, ResidualMLP):
        results["contribution_r"] = contributions(run).r
        if joint:
            owner = feature_components(run)
            shared = doubled(owner)
            results |= {"n_own": len(owner) - sum(map(len, shared.values())), "n_doubled": len(shared)}
            scrubbed = scrub(run, N_SCRUBBED, generator)
            results |= {f"{name}_mse": errors.mean().item() for name, errors in scrubbed._asdict().items()}
    return results


def _accuracies(run: Decomposed, generator: Generator) -> dict[str, float]:
    """Share of fresh sequences that an induction network answers rightly, whole and by important components alone."""
    sequences = run.target.sequences
    parts, right = sequences(N_EVALUATION, generator).split(FEWEST), {"accuracy": 0.0, "rounded_accuracy": 0.0}
    for x in parts:  # all at once would take more memory than training
        outputs = run.target(x), run.components(x, important(run, x)).output
        for name, output in zip(right, outputs, strict=True):
            right[name] += sequences.accuracy(output, x) * len(x) / N_EVALUATION
    return right


@torch.no_grad()
def check_agreement(measured: Mapping[str, Any], model: ComponentModel) -> None:
    """Raise ValueError, which names the metric, where metrics contradict the parameters that they should describe."""
    uses = {use: model.layers[layer].C for use, (layer, _) in model.uses.items()}
    for name in ("n_alive", "l0"):
        values = measured.get(name, dict.fromkeys(uses, 0))
        if not isinstance(values, dict) or set(values) != set(uses):
            raise ValueError(f"metrics.{name} must have one entry for each of {', '.join(uses)}")
        for use, value in values.items():
            if not 0 <= value <= uses[use]:
                raise ValueError(f"metrics.{name}.{use} is {value}, but there are {uses[use]} components")
    for name in ("faithfulness", "recon", "n_alive", "l0"):
        if name not in measured:
            raise ValueError(f"metrics.{name} is missing")
    for name, (low, high) in BOUNDS.items():
        value = measured.get(name, 0.0)
        if not (isinstance(value, int | float) and low <= value <= high):
            raise ValueError(f"metrics.{name} is {value}, but must be a number from {low:g} to {high:g}")
    for name, values in _of_parameters(model, measured).items():
        stored = measured[name]
        if not any(math.isclose(stored, value, rel_tol=0.05, abs_tol=1e-6) for value in values):
            raise ValueError(f"metrics.{name} is {stored}, but the tensors give {values[0]:.6g}")


def _of_parameters(model: ComponentModel, measured: Mapping[str, Any]) -> dict[str, list[float]]:
    """Those of the metrics measured that the parameters alone determine.

    Versions before 0.5 counted a tied matrix once in `faithfulness`, however many uses it has: the second value.
    """
    once = faithfulness(model.targets, model.sums, n_parameters=model.n_parameters)
    values = {"faithfulness": [model.faithfulness().item(), once.item()]}
    C, d_out, d_in = len(model.factors[0]), *next(iter(model.targets.values())).shape
    if {"mmcs", "ml2r"} & set(measured) and C * d_out * d_in <= LARGEST_COMPARED:
        cosines, ratios = metrics.best_match(*first_layer(model))
        values |= {"mmcs": [cosines.mean().item()], "ml2r": [ratios.mean().item()]}
    return {name: value for name, value in values.items() if name in measured}
