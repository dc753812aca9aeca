"""What is measured of a finished run, on fresh data."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator

from pd_helpers.analysis import metrics
from pd_helpers.analysis.decomposed import Decomposed, first_layer
from pd_helpers.analysis.gated_functions import SERVED, alone
from pd_helpers.analysis.importance_matrices import hungarian_order, importance_matrix
from pd_helpers.analysis.neuron_contributions import contributions, doubled, feature_components
from pd_helpers.analysis.scrubbing import scrub
from pd_helpers.core.components import ComponentModel
from pd_helpers.core.losses import OUTPUT_LOSSES, faithfulness
from pd_helpers.core.training import generator
from pd_helpers.targets.gated_functions import GatedNetwork
from pd_helpers.targets.residual_mlp import ResidualMLP
from pd_helpers.targets.tms import TMS

N_EVALUATION = 4096
"""Inputs on which a finished run is measured: one batch of SPD's size."""
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
}
"""Metric → its least and its largest value, up to rounding."""


@torch.no_grad()
def evaluate(run: Decomposed) -> dict[str, Any]:
    """Measure a run on fresh data.

    Keys: `mmcs` and `ml2r` of the first layer as published, `mmcs_alive` and `ml2r_alive` of its alive components
    only; `faithfulness`; `recon`, the error against the target's output (squared, or what `config.output_loss` says)
    with APD's active components or SPD's stochastic masks; `n_alive` and `l0`, each use → number; and what
    `known_target_metrics` adds. Raises ValueError for a run without data.
    """
    if run.data is None:
        raise ValueError("this run was loaded without its data; set run.data to the function that draws a batch")
    model = run.components
    draw = generator(run.seed, "evaluation", model.factors[0].device)
    batch = model.merge_empty_rows(run.data(N_EVALUATION, draw))
    g = run.importances(batch.rows, batch.n_inputs)
    masks = run.method.sample_masks(g, draw)
    output, target_output = model(batch.rows, masks).output, model.target_forward(batch.rows).output
    compare = OUTPUT_LOSSES[run.method.config.output_loss]
    P, W = first_layer(model)
    alive = {use: metrics.alive(values) for use, values in g.items()}
    P_alive = P[next(iter(alive.values()))]
    results = {
        "mmcs": metrics.mmcs(P, W),
        "ml2r": metrics.ml2r(P, W),
        "mmcs_alive": metrics.mmcs(P_alive, W) if len(P_alive) else 0.0,
        "ml2r_alive": metrics.ml2r(P_alive, W) if len(P_alive) else 0.0,
        "faithfulness": faithfulness(model.targets, model.sums, model.n_all_parameters).item(),
        "recon": compare(output, target_output, batch.n_inputs).item(),
        "n_alive": {use: int(values.sum()) for use, values in alive.items()},
        "l0": {use: metrics.l0(values, batch.counts) for use, values in g.items()},
    }
    return results | known_target_metrics(run, draw)


def known_target_metrics(run: Decomposed, generator: Generator) -> dict[str, Any]:
    """Metrics that need a target of the papers, decomposed in all of its layers; empty for other networks.

    `identity_ci_error`, where the ideal importances of every use are known; for residual MLPs `contribution_r` and,
    where components span layers, the means of `scrub`, `n_own`, the number of features with a component of their own,
    and `n_doubled`, the number of components that are first for two features or more; for the hand-written network
    `n_served`, the number of its functions that a component of their own computes alone with a relative error of at
    most 0.1 (`alone`).
    """
    results: dict[str, Any] = {}
    if not isinstance(run.target, TMS | ResidualMLP) or not set(run.target.layers) <= set(run.components.layers):
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
    for name, value in _of_parameters(model).items():
        stored = measured.get(name, value)
        if not (isinstance(stored, int | float) and math.isclose(stored, value, rel_tol=0.05, abs_tol=1e-6)):
            raise ValueError(f"metrics.{name} is {stored}, but the tensors give {value:.6g}")


def _of_parameters(model: ComponentModel) -> dict[str, float]:
    """The metrics that the parameters alone determine."""
    values = {"faithfulness": faithfulness(model.targets, model.sums, model.n_all_parameters).item()}
    C, d_out, d_in = len(model.factors[0]), *next(iter(model.targets.values())).shape
    if C * d_out * d_in <= LARGEST_COMPARED:
        cosines, ratios = metrics.best_match(*first_layer(model))
        values |= {"mmcs": cosines.mean().item(), "ml2r": ratios.mean().item()}
    return values
