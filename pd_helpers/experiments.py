"""What the papers do with a decomposed residual network, once it is trained: one function for each kind of figure.

    contributions        neuron by neuron, does a component do what the target does?    APD figs. 6, 10; SPD figs. 6, 7
    feature_components   which component serves which feature?
    doubled              which components serve two?                                     APD sections 3.2, C.2 and C.4
    importance_matrix    which subcomponents matter for which feature?                  SPD figs. 8, 12, 13
    scrub, ablate_halves ablate half of all components, those in use or not             APD figs. 7, 8, 24, 25
    single_feature       one feature on: is one component enough?                       APD figs. 16 to 18, 21 to 23
    serving, alone       which component serves which hand-written function?            APD figs. 12, 13

Errors are mean squared errors against the target's own output, as in the papers' figures.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor, nn

from pd_helpers import apd, metrics, spd
from pd_helpers.attributions import batch_top_k
from pd_helpers.components import ComponentModel
from pd_helpers.data import one_hot
from pd_helpers.gated import X_MAX, GatedNetwork
from pd_helpers.residual_mlp import ResidualMLP, labels, monosemantic_baseline
from pd_helpers.targets import TMS


@runtime_checkable
class Decomposed(Protocol):
    """What these functions need of a `Run`."""

    target: nn.Module
    components: ComponentModel
    importance: nn.Module | None
    config: apd.APDConfig | spd.SPDConfig
    data: Callable[[int, Generator], Tensor] | None

    def importances(self, x: Tensor, n_inputs: int | None = None) -> dict[str, Tensor]:
        """Use → g (rows, C)."""


class Contributions(NamedTuple):
    """How much each neuron does for each feature."""

    target: Float[Tensor, "n_features n_neurons"]
    """(W_U[i, :] W_out) ⊙ (W_in W_E[:, i]) for feature i, neurons of all layers side by side."""
    components: Float[Tensor, "n_features n_neurons"]
    """The same of each feature's predominant component."""
    chosen: Int[Tensor, "n_features n_layers"]
    """Which component that is, in each layer; in APD the same in all."""

    @property
    def r(self) -> float:
        """Correlation of the two over all features and neurons."""
        return torch.corrcoef(torch.stack([self.target.flatten(), self.components.flatten()]))[0, 1].item()


@torch.no_grad()
def contributions(run: Decomposed) -> Contributions:
    """Neuron contributions of the target and of the predominant component of each feature (APD figs. 6 and 10).

    In APD, component c contributes (W_U[i, :] P_out,c) ⊙ (P_in,c W_E[:, i]), and the one that contributes most in all,
    neurons of all layers taken together, is predominant. In SPD, subcomponents of W_in are taken with the whole of
    W_out, layer by layer (SPD fig. 6).
    """
    net, parts = _network(run), []
    targets = [_contribution(net, mlp.W_in.weight, mlp.W_out.weight) for mlp in net.mlps]
    for i, mlp in enumerate(net.mlps):
        P_in = run.components.layers[f"mlps.{i}.W_in"].P
        P_out = mlp.W_out.weight if run.importance else run.components.layers[f"mlps.{i}.W_out"].P
        parts.append(_contribution(net, P_in, P_out))  # (C, n_features, d_mlp)
    sizes = torch.stack([part.square().sum(dim=2) for part in parts])  # (n_layers, C, n_features)
    if not run.importance:
        sizes = sizes.sum(dim=0, keepdim=True).expand_as(sizes)
    chosen = sizes.argmax(dim=1)  # (n_layers, n_features)
    features = torch.arange(chosen.shape[1], device=chosen.device)
    best = [part[c, features] for part, c in zip(parts, chosen, strict=True)]
    return Contributions(torch.cat(targets, dim=1), torch.cat(best, dim=1), chosen.T)


@torch.no_grad()
def feature_attributions(run: Decomposed, value: float = 1.0) -> Float[Tensor, "n_features C"]:
    """Attributions of all components when only one feature is on, at this value."""
    return _attributions(run, one_hot(_network(run).n_features, value))


def feature_components(run: Decomposed, value: float = 1.0) -> Int[Tensor, " n_features"]:
    """The component with the largest attribution when only this feature is on, at this value (APD section 3.2)."""
    return feature_attributions(run, value).argmax(dim=1)


def doubled(owner: Int[Tensor, " n_features"]) -> dict[int, list[int]]:
    """Component → its features, of those that are first for two features or more (APD sections 3.2, C.2 and C.4)."""
    components, counts = owner.unique(return_counts=True)
    return {c: (owner == c).nonzero().flatten().tolist() for c in components[counts > 1].tolist()}


@torch.no_grad()
def importance_matrix(run: Decomposed, value: float = 0.75) -> dict[str, Float[Tensor, "n_features _"]]:
    """Use → importances (n_features, C) when only one feature is on, at this value (SPD figs. 8, 12 and 13)."""
    return run.importances(one_hot(run.target.n_features, value).to(run.components.factors[0]))


def greedy_order(matrix: Float[Tensor, "n_features C"]) -> Int[Tensor, " C"]:
    """Columns in the order that shows the diagonal: for each row in turn, the largest column not yet taken."""
    left = matrix.clone()
    order = []
    for row in left[: matrix.shape[1]]:
        order.append(int(row.argmax()))
        left[:, order[-1]] = -torch.inf
    return _and_the_rest(order, matrix.shape[1])


def hungarian_order(matrix: Float[Tensor, "n_features C"]) -> Int[Tensor, " C"]:
    """Columns in the order with the largest possible sum on the diagonal, if there are no fewer than rows."""
    rows, columns = linear_sum_assignment(matrix.cpu().numpy(), maximize=True)
    return _and_the_rest(columns[rows.argsort()].tolist(), matrix.shape[1])


class Scrubbed(NamedTuple):
    """Mean squared errors against the target's output, one number for each input."""

    topk: Float[Tensor, " rows"]
    """With the active components of the batch top-k."""
    scrubbed: Float[Tensor, " rows"]
    """With a random half of all components off, but those of the active features on."""
    anti_scrubbed: Float[Tensor, " rows"]
    """With a random half of all components off, and those of the active features too."""
    monosemantic: Float[Tensor, " rows"]
    """Of a network that gives each of its neurons to one feature."""


@torch.no_grad()
def scrub(run: Decomposed, n_inputs: int, generator: Generator) -> Scrubbed:
    """Ablate half of an APD run's components on inputs of the training distribution (APD figs. 8 and 25)."""
    net = _network(run)
    x = run.data(n_inputs, generator)
    x = x.to(net.W_E)
    own = _own_components(run, x)
    half = torch.rand(own.shape, generator=generator, device=x.device) < 0.5
    target = net(x)
    active = batch_top_k(_attributions(run, x), round(run.config.top_k * n_inputs))
    outputs = [_masked(run, x, mask) for mask in (active, half | own, half & ~own)]
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

    `owner` is `feature_components(run)`, where that is known already.

    Returns `target` (1, n_features), `topk` (1, n_features) with only the feature's own component, and `scrubbed` and
    `anti_scrubbed` (n_draws, n_features), with random halves of all components ablated.
    """
    net = _network(run)
    x = one_hot(net.n_features, value)[[feature]].to(net.W_E)
    own = _own_components(run, x, owner)
    half = torch.rand(n_draws, own.shape[1], generator=generator, device=x.device) < 0.5
    skip = x @ (net.W_U @ net.W_E).T
    many = x.expand(n_draws, -1)
    return {
        "target": net(x) - skip,
        "topk": _masked(run, x, own) - skip,
        "scrubbed": _masked(run, many, half | own) - skip,
        "anti_scrubbed": _masked(run, many, half & ~own) - skip,
    }


class SingleFeature(NamedTuple):
    """What happens on inputs with one feature on, by feature."""

    top_1: Float[Tensor, " n_features"]
    """Mean squared error with only the component of the largest attribution."""
    batch_top_k: Float[Tensor, " n_features"]
    """Mean squared error with those that the batch top-k keeps, on the full distribution."""
    n_active: Float[Tensor, " n_features"]
    """Mean number of components that it keeps."""
    label_error: Float[Tensor, " n_features"]
    """Mean squared error of the target itself, against the labels."""
    top_1_label_error: Float[Tensor, " n_features"]
    """As `top_1`, against the labels."""
    batch_top_k_label_error: Float[Tensor, " n_features"]
    """As `batch_top_k`, against the labels."""


@torch.no_grad()
def single_feature(run: Decomposed, n_inputs: int, generator: Generator, batch_size: int = 2048) -> SingleFeature:
    """Is one component enough for one feature (APD figs. 16 to 18 and 21 to 23)?

    The batch top-k is taken over batches of the training distribution; inputs with exactly one feature on are looked at
    afterwards. A feature that never was on alone has NaN. Public code draws figures 16, 17, 21 and 22 against the
    labels, figures 18 and 23 against the target's output.
    """
    net = _network(run)
    sums = torch.zeros(7, net.n_features, dtype=torch.float64, device=net.W_E.device)
    for start in range(0, n_inputs, batch_size):
        x = run.data(min(batch_size, n_inputs - start), generator).to(net.W_E)
        A = _attributions(run, x)
        active = batch_top_k(A, round(run.config.top_k * len(x)))
        alone = (x != 0).sum(dim=1) == 1
        x, A, active = x[alone], A[alone], active[alone]
        feature = (x != 0).int().argmax(dim=1)
        first = torch.zeros_like(active).scatter_(1, A.argmax(dim=1, keepdim=True), True)
        outputs, target, wanted = [_masked(run, x, mask) for mask in (first, active)], net(x), labels(x)
        values = [
            torch.ones(len(x)),
            *(_errors(y, target) for y in outputs),
            active.sum(dim=1),
            *(_errors(y, wanted) for y in [target, *outputs]),
        ]
        for total, value in zip(sums, values, strict=True):
            total.index_add_(0, feature, value.to(total))
    return SingleFeature(*(sums[1:] / sums[0]).float())


@torch.no_grad()
def serving(run: Decomposed) -> Float[Tensor, "n_functions C"]:
    """Cosine similarity of each function's mechanism with each component (APD fig. 13).

    The mechanism is what the weights of all layers are once those of other functions' neurons are zero, as one vector.
    A perfect decomposition has one 1 in each row and column.
    """
    net = _gated(run)
    owners, functions = net.owners(), torch.arange(len(net.coefficients)).view(-1, 1, 1)
    mechanisms, parts = [], []
    for path, layer in run.components.layers.items():
        W = net.get_submodule(path).weight
        mechanisms.append(torch.where(owners[path] == functions.to(W.device), W, 0.0).flatten(1))
        parts.append(layer.P.flatten(1))
    return F.cosine_similarity(torch.cat(mechanisms, dim=1).unsqueeze(1), torch.cat(parts, dim=1), dim=2)


@torch.no_grad()
def purity(run: Decomposed) -> Float[Tensor, "C n_functions"]:
    """Share of each component's squared weights that serve each function in the target (APD fig. 13's colours)."""
    net = _gated(run)
    functions, served, whole = torch.arange(len(net.coefficients)).view(-1, 1, 1, 1), 0.0, 0.0
    for path, owner in net.owners().items():
        squares = run.components.layers[path].P.square()  # (C, d_out, d_in)
        served = served + torch.where(owner == functions.to(owner), squares, 0.0).sum(dim=(2, 3))
        whole = whole + squares.sum(dim=(1, 2))
    return (served / whole).T


class Alone(NamedTuple):
    """What the network computes with one component only."""

    x: Float[Tensor, " points"]
    wanted: Float[Tensor, "n_functions points"]
    """The target's output with one bit on."""
    found: Float[Tensor, "n_functions C points"]
    """The same with only one component active."""

    @property
    def errors(self) -> Float[Tensor, "n_functions C"]:
        """Mean squared error over x, divided by the function's mean square: 0 is perfect, a silent component has 1."""
        squares = (self.found - self.wanted.unsqueeze(1)).square().mean(dim=2)
        return squares / self.wanted.square().mean(dim=1, keepdim=True)

    @property
    def served_by(self) -> Int[Tensor, " n_functions"]:
        """The component of each function, all different, that makes the errors smallest in all."""
        return hungarian_order(-self.errors.clamp(max=1.0))[: len(self.wanted)]


@torch.no_grad()
def alone(run: Decomposed, n_points: int = 200) -> Alone:
    """How well each component alone computes each hand-written function (APD fig. 12, one component at a time)."""
    net = _gated(run)
    n, C = len(net.coefficients), next(iter(run.components.layers.values())).C
    x = torch.linspace(0, X_MAX, n_points)
    bits = torch.eye(n).repeat_interleave(n_points, dim=0)
    inputs = torch.cat([x.repeat(n).unsqueeze(1), bits], dim=1).to(run.components.factors[0])
    outputs = [run.components(inputs, only.expand(len(inputs), C)).output for only in torch.eye(C).to(inputs)]
    found = torch.stack(outputs).view(C, n, n_points).transpose(0, 1)
    return Alone(x, net(inputs).view(n, n_points), found)


SERVED = 0.1
"""Relative error up to which a component alone is said to serve a function."""
N_SCRUBBED = 8192
"""Inputs on which `extra_metrics` measures what ablation does."""


def extra_metrics(run: Decomposed, generator: Generator) -> dict[str, Any]:
    """What `evaluate` adds to a run's metrics: `identity_ci_error` where SPD's ideal is known; for residual MLPs
    `contribution_r`, and in APD the means of `scrub`, `n_own`, the features with a component of their own, and
    `n_doubled`, the components that are first for two features or more; for the hand-written network `n_served`, its
    functions that a component computes alone with a relative error of at most 0.1 (`alone`), each another component.
    """
    found: dict[str, Any] = {}
    if not isinstance(run.target, TMS | ResidualMLP) or not set(run.target.layers) <= set(run.components.layers):
        return found  # another network, or decomposed in part, where none of these say anything
    if run.importance and run.target.ideal:
        g = importance_matrix(run)
        found["identity_ci_error"] = sum(
            metrics.identity_ci_error(torch.cat([g[use] for use in uses], dim=1), rank)
            for uses, rank in run.target.ideal.items()
        )
    if isinstance(run.target, GatedNetwork) and not run.importance:
        served = (alone(run).errors <= SERVED).float()
        found["n_served"] = int(served[:, hungarian_order(served)].diagonal().sum())
    elif isinstance(run.target, ResidualMLP) and not isinstance(run.target, GatedNetwork):
        found["contribution_r"] = contributions(run).r
        if not run.importance:
            owner = feature_components(run)
            shared = doubled(owner)
            found |= {"n_own": len(owner) - sum(map(len, shared.values())), "n_doubled": len(shared)}
            scrubbed = scrub(run, N_SCRUBBED, generator)
            found |= {f"{name}_mse": errors.mean().item() for name, errors in scrubbed._asdict().items()}
    return found


def _and_the_rest(order: list[int], n: int) -> Int[Tensor, " n"]:
    """These of n columns, then the others."""
    return torch.tensor(order + sorted(set(range(n)) - set(order)))


def _gated(run: Decomposed) -> GatedNetwork:
    if not isinstance(run.target, GatedNetwork):
        raise TypeError(f"run must decompose a GatedNetwork, but decomposes a {type(run.target).__name__}")
    return run.target


def _network(run: Decomposed) -> ResidualMLP:
    if not isinstance(run.target, ResidualMLP) or isinstance(run.target, GatedNetwork):
        raise TypeError(f"run must decompose a ResidualMLP, but decomposes a {type(run.target).__name__}")
    return run.target


def _contribution(net: ResidualMLP, W_in: Tensor, W_out: Tensor) -> Float[Tensor, "*C n_features d_mlp"]:
    return (net.W_U @ W_out) * (W_in @ net.W_E).mT


def _attributions(run: Decomposed, x: Float[Tensor, "rows n_features"]) -> Float[Tensor, "rows C"]:
    if not isinstance(run.config, apd.APDConfig):
        raise TypeError("run must be an APD run: SPD's subcomponents have importances, not attributions")
    chunks = x.to(run.components.factors[0]).split(2048)  # (C, rows, n_outputs) would be large
    return torch.cat([apd.component_attributions(run.components, rows, run.config) for rows in chunks])


def _own_components(
    run: Decomposed, x: Float[Tensor, "rows n_features"], owner: Int[Tensor, " n_features"] | None = None
) -> Bool[Tensor, "rows C"]:
    """Which components belong to the features that are on."""
    owner = feature_components(run) if owner is None else owner
    own = torch.zeros(len(x), next(iter(run.components.layers.values())).C, dtype=torch.bool, device=x.device)
    rows, features = (x != 0).nonzero(as_tuple=True)
    own[rows, owner[features]] = True
    return own


def _masked(run: Decomposed, x: Float[Tensor, "rows n_features"], mask: Bool[Tensor, "rows C"]) -> Tensor:
    """The output with these components, a few thousand rows at a time to keep memory low."""
    chunks = zip(x.split(2048), mask.split(2048), strict=True)
    return torch.cat([run.components(rows, on).output for rows, on in chunks])


def _errors(output: Tensor, target: Tensor) -> Float[Tensor, " rows"]:
    return (output - target).square().mean(dim=1)
