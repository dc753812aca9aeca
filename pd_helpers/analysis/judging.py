"""Is a decomposition any good if nobody knows the right one? What can be measured on a classifier of your own.

judge            accuracy and KL divergence with all subcomponents, with the important ones only, or the rest random
noise            the divergence caused by one layer's unimportant subcomponents, and by random directions
overlap          how often two subcomponents are important on the same inputs
duplicates       pairs of subcomponents that are nearly always important together
matched          which subcomponents of two decompositions are the same
kept             how much of an inserted identity (`editing.with_identity`) the decomposition preserves
class_accuracy   the accuracy for each class
class_effects    how each subcomponent's removal changes the accuracy for each class
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from pd_helpers.analysis.decomposed import Decomposed
from pd_helpers.analysis.editing import component_numbers, output_without
from pd_helpers.analysis.metrics import ALIVE
from pd_helpers.core.losses import kl_divergence
from pd_helpers.core.networks.batches import Inputs


class Judged(NamedTuple):
    """How well a masked network replaces the target."""

    accuracy: float
    """Share of inputs that are classified correctly."""
    kl: float
    """KL divergence from the target's output, in nats per input."""


@torch.no_grad()
def judge(
    run: Decomposed, x: Inputs, labels: Int[Tensor, " inputs"], generator: Generator, n_draws: int = 8
) -> dict[str, Judged]:
    """Accuracy and KL divergence of the target and of three masked networks.

    `x` is a batch as the network takes it, and the network must answer with logits (inputs, classes). Keys: `network`,
    the target itself; `all`, with all subcomponents on; `important`, with only those on, at every row of a layer, whose
    importance exceeds 0.1 there; and `random`, where all others have masks from U(0, 1), averaged over `n_draws` draws.
    """
    model = run.components
    target_output = model.target_forward(x).output
    importances = run.importances(x)
    important = {use: g > ALIVE for use, g in importances.items()}

    def judged(output: Tensor) -> Judged:
        return Judged(
            (output.argmax(dim=1) == labels).double().mean().item(), kl_divergence(output, target_output).item()
        )

    def random_masks() -> dict[str, Tensor]:
        return {
            use: torch.where(on, 1.0, _uniform(on.shape, importances[use], generator)) for use, on in important.items()
        }

    draws = [judged(model(x, random_masks()).output) for _ in range(n_draws)]
    return {
        "network": judged(target_output),
        "all": judged(model(x).output),
        "important": judged(model(x, {use: on.to(importances[use].dtype) for use, on in important.items()}).output),
        "random": Judged(*torch.tensor(draws, dtype=torch.float64).mean(dim=0).tolist()),
    }


class Noise(NamedTuple):
    """KL divergence when the unimportant subcomponents of one layer get masks from U(0, 1)."""

    measured: float
    """With the subcomponents as they are."""
    random_directions: float
    """If each of them read a random direction of the same length instead of its own."""


@torch.no_grad()
def noise(run: Decomposed, x: Float[Tensor, "rows d_in"], use: str, generator: Generator, n_draws: int = 8) -> Noise:
    """How much of the error under random masks would superposition explain?

    Many unrelated subcomponents in d dimensions cannot all be orthogonal. A subcomponent with a random direction reads
    ‖x‖ ‖V_c‖ z / √d off an unrelated layer input x, where z is a standard normal number.
    """
    model = run.components
    layer, transposed = model.uses[use]
    target = model.target_forward(x)
    layer_input, V = target.inputs[use], model.layers[layer].V[:, 0]
    if transposed:
        V = model.layers[layer].U[:, :, 0]
    reads = model.inner(target.inputs)[use].squeeze(-1)  # (rows, C)
    typical_reads = layer_input.norm(dim=1, keepdim=True) * V.norm(dim=1) / layer_input.shape[1] ** 0.5
    unimportant = run.importances(x)[use] <= ALIVE
    measured = random = 0.0
    for _ in range(n_draws):
        complement = torch.where(unimportant, 1 - _uniform(unimportant.shape, x, generator), 0.0)  # 1 - m
        z = torch.randn(unimportant.shape, generator=generator, device=x.device, dtype=x.dtype)
        ratio = torch.where(reads == 0, 0.0, typical_reads * z / reads)  # as a mask it replaces what is read
        measured += kl_divergence(model(x, {use: 1 - complement}).output, target.output).item() / n_draws
        random += kl_divergence(model(x, {use: 1 - complement * ratio}).output, target.output).item() / n_draws
    return Noise(measured, random)


def overlap(on: Bool[Tensor, "rows C"]) -> Float[Tensor, "C C"]:
    """Of the inputs on which at least one of two subcomponents is important, the share on which both are.

    0 for two subcomponents that are never important.
    """
    counts = on.double().T @ on.double()
    either = counts.diag()[:, None] + counts.diag() - counts
    return torch.where(either > 0, counts / either.clamp(min=1), 0.0)


def duplicates(on: Bool[Tensor, "rows C"], least: float = 0.8) -> list[tuple[int, int]]:
    """Pairs of subcomponents whose `overlap` is at least `least`: they are important on nearly the same inputs."""
    return [(a, b) for a, b in (overlap(on).triu(diagonal=1) >= least).nonzero().tolist()]


class Matched(NamedTuple):
    """The best one-to-one pairs of two sets of components, most similar first."""

    first: Int[Tensor, " pairs"]
    """Number of the component in the first set."""
    second: Int[Tensor, " pairs"]
    """Number of the component in the second set."""
    cosine: Float[Tensor, " pairs"]
    """Cosine similarity of the two."""


def matched(P: Float[Tensor, "C d_out d_in"], Q: Float[Tensor, "C2 d_out d_in"]) -> Matched:
    """Pair the components of two decompositions so that the sum of cosine similarities is largest.

    Matrices are compared and not their factors, because U_c V_c and (−U_c)(−V_c) are the same component.
    """
    P, Q = F.normalize(P.detach().flatten(1)), F.normalize(Q.detach().flatten(1))
    cosines = P @ Q.T
    rows, columns = map(torch.as_tensor, linear_sum_assignment(cosines.cpu().numpy(), maximize=True))
    best = cosines[rows, columns]
    order = best.argsort(descending=True)
    return Matched(rows[order], columns[order], best[order])


def kept(P: Float[Tensor, "C d d"], W_next: Float[Tensor, "d_out d"]) -> float:
    """How much of the next layer these components of an identity preserve: 1 − ‖W_next ΣP − W_next‖ / ‖W_next‖.

    The score is 1 if they pass on everything that the next layer reads. If W_next gives logits, subtract the mean of
    its rows before, since adding one number to all logits changes nothing.
    """
    return 1 - ((W_next @ P.sum(dim=0) - W_next).norm() / W_next.norm()).item()


def class_accuracy(output: Float[Tensor, "rows classes"], labels: Int[Tensor, " rows"]) -> Float[Tensor, " classes"]:
    """For each class, the share of its inputs that are classified correctly; NaN for a class without inputs."""
    correct = (output.argmax(dim=1) == labels).double()
    classes = F.one_hot(labels, output.shape[1]).double()
    return correct @ classes / classes.sum(dim=0)


@torch.no_grad()
def class_effects(
    run: Decomposed, x: Float[Tensor, "rows d_in"], labels: Int[Tensor, " rows"], use: str
) -> Float[Tensor, "C classes"]:
    """Change of each class's accuracy when one subcomponent of this use is switched off and all others are on."""
    model = run.components
    before = class_accuracy(model(x).output, labels)
    return torch.stack(
        [class_accuracy(output_without(run, x, use, c), labels) - before for c in component_numbers(run, use)]
    )


def _uniform(shape: torch.Size, like: Tensor, generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)
