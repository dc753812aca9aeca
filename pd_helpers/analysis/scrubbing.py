"""How does the output change when components are ablated that should, or should not, matter?

    scrub            half of all components off, on inputs of the training distribution   APD figs. 8 and 25
    ablate_halves    many random halves off, with one feature on                          APD figs. 7 and 24
    single_feature   is one component enough when one feature is on?                      APD figs. 16 to 18, 21 to 23

Errors are mean squared errors against the target's own output, as in the papers' figures.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from pd_helpers.analysis.decomposed import Decomposed, attributions, residual_mlp
from pd_helpers.analysis.neuron_contributions import feature_components
from pd_helpers.core.attributions import batch_top_k
from pd_helpers.targets.features import one_hot
from pd_helpers.targets.residual_mlp import labels, monosemantic_baseline


class Scrubbed(NamedTuple):
    """Mean squared errors against the target's output, with one number for each input."""

    topk: Float[Tensor, " rows"]
    """With only the active components of the batch top-k on."""
    scrubbed: Float[Tensor, " rows"]
    """With a random half of all components off, but those of the active features on."""
    anti_scrubbed: Float[Tensor, " rows"]
    """With a random half of all components off, and those of the active features off too."""
    monosemantic: Float[Tensor, " rows"]
    """The error of a network that gives each of its neurons to one feature."""


@torch.no_grad()
def scrub(run: Decomposed, n_inputs: int, generator: Generator) -> Scrubbed:
    """Ablate half of an APD run's components on inputs of the training distribution (APD figs. 8 and 25)."""
    net = residual_mlp(run)
    x = run.data(n_inputs, generator)
    x = x.to(net.W_E)
    own_mask = _own_components(run, x)
    half = torch.rand(own_mask.shape, generator=generator, device=x.device) < 0.5
    target = net(x)
    active = batch_top_k(attributions(run, x), round(run.method.config.top_k * len(x)))
    outputs = [_masked(run, x, mask) for mask in (active, half | own_mask, half & ~own_mask)]
    return Scrubbed(*(_errors(y, target) for y in [*outputs, monosemantic_baseline(x, net.n_neurons)]))


@torch.no_grad()
def ablate_halves(
    run: Decomposed,
    feature: int,
    n_draws: int,
    generator: Generator,
    value: float = 1.0,
    owner: Int[Tensor, " n_features"] | None = None,
) -> dict[str, Float[Tensor, "_ n_features"]]:
    """What the MLPs add to the output when one feature is on (APD figs. 7 and 24).

    Pass `feature_components(run)` as `owner` if it is known already.

    Returns a dict with `target` (1, n_features); `topk` (1, n_features), with only the feature's own component on; and
    `scrubbed` and `anti_scrubbed` (n_draws, n_features), with random halves of all components ablated and the
    feature's own component on or off.
    """
    net = residual_mlp(run)
    x = one_hot(net.n_features, value)[[feature]].to(net.W_E)
    own_mask = _own_components(run, x, owner)
    half = torch.rand(n_draws, own_mask.shape[1], generator=generator, device=x.device) < 0.5
    skip = x @ (net.W_U @ net.W_E).T
    copies = x.expand(n_draws, -1)
    return {
        "target": net(x) - skip,
        "topk": _masked(run, x, own_mask) - skip,
        "scrubbed": _masked(run, copies, half | own_mask) - skip,
        "anti_scrubbed": _masked(run, copies, half & ~own_mask) - skip,
    }


class SingleFeature(NamedTuple):
    """Mean errors and active components on the inputs on which a feature is on alone, for each feature."""

    top_1: Float[Tensor, " n_features"]
    """Mean squared error against the target, with only the component that has the largest attribution."""
    batch_top_k: Float[Tensor, " n_features"]
    """Mean squared error against the target, with the components that the batch top-k keeps active."""
    n_active: Float[Tensor, " n_features"]
    """Mean number of components that the batch top-k keeps active."""
    label_error: Float[Tensor, " n_features"]
    """Mean squared error of the target itself against the labels."""
    top_1_label_error: Float[Tensor, " n_features"]
    """Like `top_1`, but against the labels."""
    batch_top_k_label_error: Float[Tensor, " n_features"]
    """Like `batch_top_k`, but against the labels."""


@torch.no_grad()
def single_feature(run: Decomposed, n_inputs: int, generator: Generator, batch_size: int = 2048) -> SingleFeature:
    """Is one component enough for one feature (APD figs. 16 to 18 and 21 to 23)?

    The batch top-k is taken over whole batches of the training distribution, of which only the inputs with exactly one
    feature on are then used. A feature that is never on alone has NaN. Public code measures errors in figures 16, 17,
    21 and 22 against the labels, and in figures 18 and 23 against the target's output.
    """
    net = residual_mlp(run)
    sums = torch.zeros(7, net.n_features, dtype=torch.float64, device=net.W_E.device)
    for start in range(0, n_inputs, batch_size):
        x = run.data(min(batch_size, n_inputs - start), generator).to(net.W_E)
        A = attributions(run, x)
        active = batch_top_k(A, round(run.method.config.top_k * len(x)))
        alone = (x != 0).sum(dim=1) == 1
        x, A, active = x[alone], A[alone], active[alone]
        feature = (x != 0).int().argmax(dim=1)
        first = torch.zeros_like(active).scatter_(1, A.argmax(dim=1, keepdim=True), True)
        outputs, target, label = [_masked(run, x, mask) for mask in (first, active)], net(x), labels(x)
        values = [
            torch.ones(len(x)),
            *(_errors(y, target) for y in outputs),
            active.sum(dim=1),
            *(_errors(y, label) for y in [target, *outputs]),
        ]
        for total, value in zip(sums, values, strict=True):
            total.index_add_(0, feature, value.to(total))
    return SingleFeature(*(sums[1:] / sums[0]).float())


def _own_components(
    run: Decomposed, x: Float[Tensor, "rows n_features"], owner: Int[Tensor, " n_features"] | None = None
) -> Bool[Tensor, "rows C"]:
    """Which components belong to the features that are on, for each row."""
    owner = feature_components(run) if owner is None else owner
    own_mask = torch.zeros(len(x), next(iter(run.components.layers.values())).C, dtype=torch.bool, device=x.device)
    rows, features = (x != 0).nonzero(as_tuple=True)
    own_mask[rows, owner[features]] = True
    return own_mask


def _masked(run: Decomposed, x: Float[Tensor, "rows n_features"], mask: Bool[Tensor, "rows C"]) -> Tensor:
    """The output with these components on, computed for a few thousand rows at a time to save memory."""
    chunks = zip(x.split(2048), mask.split(2048), strict=True)
    return torch.cat([run.components(rows, on).output for rows, on in chunks])


def _errors(output: Tensor, target: Tensor) -> Float[Tensor, " rows"]:
    return (output - target).square().mean(dim=1)
