"""Is a decomposition any good, where nobody knows the right one? What can be measured on a classifier of your own.

judge             accuracy and KL divergence with everything on, with the important ones only, with the rest at random
noise             the divergence that one layer's unimportant pieces cause, and what random directions would cause
overlap           which subcomponents are important on the same inputs; `duplicates`, nearly always together
matched           which pieces of two decompositions are the same
with_identity     a network with a layer inserted whose mechanism we know; `kept` says how much of it was found
shuffled          a network of the same weights in another order: nothing to be found
class_effects     what each subcomponent's removal does to each class; `edited` removes it for real
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor, nn

from pd_helpers.losses import divergence
from pd_helpers.metrics import ALIVE

if TYPE_CHECKING:
    from pd_helpers.runs import Run


class Judged(NamedTuple):
    """How well a masked network does the target's work."""

    accuracy: float
    divergence: float
    """KL divergence from the target's output, in nats for each input."""


@torch.no_grad()
def judge(
    run: "Run", x: Float[Tensor, "rows d_in"], labels: Int[Tensor, " rows"], generator: Generator, n_draws: int = 8
) -> dict[str, Judged]:
    """The network; all subcomponents; those with g > 0.1 only; and these with all others masked by U(0, 1).

    Keys: `network`, `all`, `important`, `random`, the last a mean over draws.
    """
    model = run.components
    wanted = model.target(x)
    on = {use: g > ALIVE for use, g in run.importances(x).items()}

    def judged(output: Tensor) -> Judged:
        return Judged((output.argmax(dim=1) == labels).double().mean().item(), divergence(output, wanted).item())

    def randomly() -> dict[str, Tensor]:
        return {use: torch.where(is_on, 1.0, _uniform(is_on.shape, x, generator)) for use, is_on in on.items()}

    draws = [judged(model(x, randomly()).output) for _ in range(n_draws)]
    return {
        "network": judged(wanted),
        "all": judged(model(x).output),
        "important": judged(model(x, {use: is_on.to(x.dtype) for use, is_on in on.items()}).output),
        "random": Judged(*torch.tensor(draws, dtype=torch.float64).mean(dim=0).tolist()),
    }


class Noise(NamedTuple):
    """KL divergence when the unimportant subcomponents of one layer get masks from U(0, 1)."""

    found: float
    random_directions: float
    """The same if each of them read a random direction instead of its own, at the same length."""


@torch.no_grad()
def noise(run: "Run", x: Float[Tensor, "rows d_in"], use: str, generator: Generator, n_draws: int = 8) -> Noise:
    """How much of the error under random masks would superposition explain?

    Many unrelated pieces in d dimensions cannot all be orthogonal. One that reads a random direction reads
    ‖a‖ ‖V_c‖ z / √d off an activation a that has nothing to do with it, z a standard normal number.
    """
    model = run.components
    layer, transposed = model.uses[use]
    target = model.target_forward(x)
    a, V = target.inputs[use], model.layers[layer].V[:, 0]
    if transposed:
        V = model.layers[layer].U[:, :, 0]
    reads = model.inner(target.inputs)[use].squeeze(-1)  # (rows, C)
    typical = a.norm(dim=1, keepdim=True) * V.norm(dim=1) / a.shape[1] ** 0.5
    off = run.importances(x)[use] <= ALIVE
    found = random = 0.0
    for _ in range(n_draws):
        missing = torch.where(off, 1 - _uniform(off.shape, x, generator), 0.0)  # 1 - m
        z = torch.randn(off.shape, generator=generator, device=x.device, dtype=x.dtype)
        instead = torch.where(reads == 0, 0.0, typical * z / reads)  # by a mask, what is read becomes another number
        found += divergence(model(x, {use: 1 - missing}).output, target.output).item() / n_draws
        random += divergence(model(x, {use: 1 - missing * instead}).output, target.output).item() / n_draws
    return Noise(found, random)


def overlap(on: Bool[Tensor, "rows C"]) -> Float[Tensor, "C C"]:
    """On how many of the inputs where one of two subcomponents is important are both? 0 where neither ever is."""
    both = on.double().T @ on.double()
    either = both.diag()[:, None] + both.diag() - both
    return torch.where(either > 0, both / either.clamp(min=1), 0.0)


def duplicates(on: Bool[Tensor, "rows C"], least: float = 0.8) -> list[tuple[int, int]]:
    """Pairs of subcomponents that are important on nearly the same inputs."""
    return [(a, b) for a, b in (overlap(on).triu(diagonal=1) >= least).nonzero().tolist()]


class Matched(NamedTuple):
    """The best one-to-one pairs of two sets of components, most similar first."""

    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    cosine: Float[Tensor, " pairs"]


def matched(P: Float[Tensor, "C d_out d_in"], Q: Float[Tensor, "C2 d_out d_in"]) -> Matched:
    """Pair the components of two decompositions so that the sum of cosine similarities is largest.

    U V and (−U)(−V) are the same component, so matrices are compared and not their factors.
    """
    P, Q = F.normalize(P.detach().flatten(1)), F.normalize(Q.detach().flatten(1))
    cosines = P @ Q.T
    rows, columns = map(torch.as_tensor, linear_sum_assignment(cosines.cpu().numpy(), maximize=True))
    best = cosines[rows, columns]
    order = best.argsort(descending=True)
    return Matched(rows[order], columns[order], best[order])


def with_identity(network: nn.Sequential, before: str, name: str = "identity") -> nn.Sequential:
    """A copy of the network that computes the same, with an identity matrix as a layer of its own before `before`."""
    layers = dict(deepcopy(network).named_children())
    if before not in layers or not isinstance(layers[before], nn.Linear):
        linear = [path for path, layer in layers.items() if isinstance(layer, nn.Linear)]
        raise ValueError(f"before must name an nn.Linear of the network, but is {before!r}; {linear[-1]!r} works")
    weight = layers[before].weight
    inserted = nn.Linear(weight.shape[1], weight.shape[1], bias=False, device=weight.device, dtype=weight.dtype)
    nn.init.eye_(inserted.weight)
    longer = nn.Sequential()
    for path, layer in layers.items():
        if path == before:
            longer.add_module(name, inserted)
        longer.add_module(path, layer)
    return longer


def kept(P: Float[Tensor, "C d d"], W_next: Float[Tensor, "d_out d"]) -> float:
    """What these components of an identity leave of the next layer, 1 − ‖W_next ΣP − W_next‖ / ‖W_next‖.

    1 if they pass on all that the next layer reads. A shift of all logits does nothing: center W_next before.
    """
    return 1 - ((W_next @ P.sum(dim=0) - W_next).norm() / W_next.norm()).item()


def shuffled(network: nn.Module, generator: Generator) -> nn.Module:
    """A copy whose weight matrices have the same entries in a random order."""
    copy = deepcopy(network)
    with torch.no_grad():
        for module in copy.modules():
            if isinstance(module, nn.Linear):
                order = torch.randperm(module.weight.numel(), generator=generator, device=generator.device)
                module.weight.copy_(module.weight.flatten()[order.to(module.weight.device)].view_as(module.weight))
    return copy


def class_accuracy(output: Float[Tensor, "rows classes"], labels: Int[Tensor, " rows"]) -> Float[Tensor, " classes"]:
    """The share of each class's inputs that are recognised; NaN for a class without inputs."""
    right = (output.argmax(dim=1) == labels).double()
    of_class = F.one_hot(labels, output.shape[1]).double()
    return right @ of_class / of_class.sum(dim=0)


@torch.no_grad()
def class_effects(
    run: "Run", x: Float[Tensor, "rows d_in"], labels: Int[Tensor, " rows"], use: str
) -> Float[Tensor, "C classes"]:
    """Change of each class's accuracy when one subcomponent of this use is switched off and all others are on."""
    model = run.components
    before = class_accuracy(model(x).output, labels)
    return torch.stack([class_accuracy(output_without(run, x, use, c), labels) - before for c in _range(run, use)])


@torch.no_grad()
def output_without(run: "Run", x: Float[Tensor, "rows d_in"], use: str, c: int) -> Float[Tensor, "rows d_output"]:
    """The output with one subcomponent of one use switched off."""
    masks = {path: x.new_ones(len(x), len(_range(run, path))) for path in run.components.uses}
    masks[use][:, c] = 0
    return run.components(x, masks).output


@torch.no_grad()
def edited(network: nn.Module, changes: Mapping[str, Float[Tensor, "d_out d_in"]]) -> nn.Module:
    """A copy of the network with a matrix added to some layers' weights: layer → change."""
    copy = deepcopy(network)
    for path, change in changes.items():
        copy.get_submodule(path).weight.add_(change)
    return copy


def _range(run: "Run", use: str) -> range:
    return range(run.components.layers[run.components.uses[use].layer].C)


def _uniform(shape: torch.Size, like: Tensor, generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)
