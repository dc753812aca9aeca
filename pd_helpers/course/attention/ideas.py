"""An induction head's decomposition put to the test: sequences as text, ablations, edits, controls and attacks."""

import time
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pd_helpers.analysis import induction
from pd_helpers.analysis.attacks import RUNGS, attack
from pd_helpers.analysis.decomposed import Decomposed
from pd_helpers.core.config import shown
from pd_helpers.core.training import generator, progress
from pd_helpers.runs.shipped import shipped
from pd_helpers.runs.sweeps import points_of
from pd_helpers.targets.induction import InductionNetwork, InductionSequences, frequencies

if TYPE_CHECKING:
    import pandas

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-"
"""Characters that stand for tokens 0 to 63."""
BOS, MARKER = "^", "*"
"""Characters that stand for the beginning of a sequence and for the marker S."""
N_INPUTS = 256
"""Sequences that are attacked together."""
STRENGTH = 0.7
"""How far a swap goes; beyond 0.5 what is written for a is nearer to what was written for b."""

Groups = dict[str, dict[str, list[int]]]
"""Name of a mechanism → matrix → numbers of the subcomponents that carry it."""


def tokens(text: str) -> Int[Tensor, " length"]:
    """Characters as tokens; raises ValueError for one that stands for none."""
    characters = ALPHABET + BOS + MARKER
    if unknown := [c for c in text if c not in characters]:
        raise ValueError(
            f"text must consist of letters, digits, + and -, with {BOS} for the beginning and {MARKER} for the marker, "
            f"but has {shown(unknown[0])}; 'ab{MARKER}c' works"
        )
    return torch.tensor([characters.index(c) for c in text])


def text(x: Int[Tensor, " length"]) -> str:
    """Tokens as characters."""
    return "".join((ALPHABET + BOS + MARKER)[i] for i in x.tolist())


def sequences_of(run: Decomposed) -> InductionSequences:
    """The task of the network that a run decomposes; raises TypeError if it decomposes no induction network."""
    if not isinstance(run.target, InductionNetwork):
        raise TypeError(
            f"run must decompose an InductionNetwork, but decomposes a {type(run.target).__name__}; "
            "pdh.shipped('vpd/induction') works"
        )
    return run.target.sequences


def carriers(run: Decomposed, x: Int[Tensor, "batch length"]) -> Groups:
    """The subcomponents that carry each of the two mechanisms, by the rule of `analysis.induction`."""
    contributions = {
        "previous token": (0, induction.previous_token(run, x)),
        "induction": (1, induction.induction(run, x)),
    }
    return {
        name: {f"blocks.{i}.{matrix}": on.nonzero().flatten().tolist() for matrix, on in each.carriers().items()}
        for name, (i, each) in contributions.items()
    }


def all_but(run: Decomposed, kept: Sequence[Mapping[str, Collection[int]]]) -> dict[str, list[int]]:
    """Matrix → numbers of the subcomponents that are in none of the groups `kept`."""
    return {
        use: sorted(set(range(run.components.layers[layer].C)) - {c for group in kept for c in group.get(use, ())})
        for use, (layer, _) in run.components.uses.items()
    }


@torch.no_grad()
def accuracy_without(run: Decomposed, x: Int[Tensor, "batch length"], off: Mapping[str, Collection[int]]) -> float:
    """Share of right answers with some subcomponents switched off at all positions, and all others on."""
    with run.masked({use: dict.fromkeys(numbers, 0.0) for use, numbers in off.items()}) as network:
        return sequences_of(run).accuracy(network(x), x)


def rotation(d: int, places: int) -> Float[Tensor, "d d"]:
    """The matrix R with R p_t = p_(t - places) for positions of `sinusoids`, whose sines and cosines it rotates."""
    R = torch.zeros(d, d)
    for i, frequency in enumerate(frequencies(d)):
        angle = places * frequency
        R[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = torch.tensor(
            [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]]
        )
    return R


@torch.no_grad()
def shifted(run: Decomposed, queries: Collection[int], places: int) -> nn.Module:
    """A copy of the network in which these subcomponents of layer 0's q ask what they asked `places` positions earlier.

    U is rewritten so that U'ᵀ V p_t is as near as can be to Uᵀ V p_(t - places). Nothing is trained.
    """
    path, chosen = "blocks.0.q", sorted(queries)
    layer = run.components.layers[path]
    V = layer.V[chosen].squeeze(1)  # (n, d)
    M = V @ rotation(V.shape[1], places).to(V) @ torch.linalg.pinv(V)  # M V ≈ V R, (n, n)
    U = M.T @ layer.U[chosen].squeeze(-1)  # (n, d)
    return run.edited(rewrites={path: dict(zip(chosen, U, strict=True))})


@torch.no_grad()
def accuracy_ahead(network: nn.Module, x: Int[Tensor, "batch length"], sequences: InductionSequences, k: int) -> float:
    """Share of sequences for which the network answers with the token k places after the first marker.

    Sequences whose marker has no ordinary token there do not count.
    """
    places = sequences.places(x) + k
    inside = places < x.shape[1] - 1
    answers = x[inside].gather(1, places[inside].unsqueeze(1)).squeeze(1)
    return (network(x[inside]).argmax(dim=-1) == answers).float().mean().item()


class Copied(NamedTuple):
    """What the subcomponents of layer 1's o write at the last position, and what is there without them."""

    stream: Float[Tensor, "batch d"]
    written: Float[Tensor, "batch d"]
    answers: Int[Tensor, " batch"]

    @property
    def means(self) -> Float[Tensor, "vocabulary d"]:
        """The mean of what is written for each answer."""
        return torch.stack([self.written[self.answers == i].mean(dim=0) for i in range(int(self.answers.max()) + 1)])


@torch.no_grad()
def copied(run: Decomposed, x: Int[Tensor, "batch length"]) -> Copied:
    """What the subcomponents of layer 1's o write at the last position of these sequences, in the target's own pass."""
    path, model = "blocks.1.o", run.components
    reads = model.layers[path].inner(model.entering(x)[path][:, -1]).squeeze(-1)  # (batch, C)
    written = reads @ model.layers[path].U.squeeze(-1)
    return Copied(run.target.stream(x)[:, -1] - written, written, sequences_of(run).answers(x))


def swap_vectors(means: Float[Tensor, "vocabulary d"], a: int, b: int) -> tuple[Tensor, Tensor]:
    """Directions d and r such that z - 2 (r · z) d turns what is written for a into what is written for b, and back.

    d is the difference of the two means. r · d = 1, and of all directions with this property r reads least of what is
    written for other answers.
    """
    d = means[a] - means[b]
    r = torch.linalg.solve(means.T @ means / len(means), d)
    return d, r / (r @ d)


@torch.no_grad()
def swaps(run: Decomposed, x: Int[Tensor, "batch length"], strength: float = STRENGTH) -> "pandas.DataFrame":
    """How well pairs of answers can be swapped: a row for each a and b, with accuracies on these two and on others."""
    import pandas

    parts, W_U, rows = copied(run, x), run.target.unembed.weight, []
    logits, means = (parts.stream + parts.written) @ W_U.T, parts.means
    for a, b in combinations(range(len(means)), 2):
        d, r = swap_vectors(means, a, b)
        chosen = (logits - 2 * strength * (parts.written @ r)[:, None] * (W_U @ d)).argmax(dim=1)
        is_a, is_b = parts.answers == a, parts.answers == b
        right = chosen == parts.answers.masked_fill(is_a, b).masked_fill(is_b, a)
        both = is_a | is_b
        rows.append({"a": a, "b": b, "swapped": right[both].float().mean(), "others": right[~both].float().mean()})
    return pandas.DataFrame(rows).astype({"swapped": float, "others": float})


@torch.no_grad()
def swapped(run: Decomposed, x: Int[Tensor, "batch length"], a: int, b: int, strength: float = STRENGTH) -> nn.Module:
    """A copy of the network that answers b where a is right, and a where b is: layer 1's o writes anew.

    Each of its U becomes U - 2 s (r · U) d with the vectors of `swap_vectors`. Nothing is trained.
    """
    d, r = swap_vectors(copied(run, x).means, a, b)
    U = run.components.layers["blocks.1.o"].U.squeeze(-1)  # (C, d)
    return run.edited(rewrites={"blocks.1.o": dict(enumerate(U - 2 * strength * (U @ r)[:, None] * d))})


def ladders(
    grid: Mapping[str, Sequence], *, rungs: Sequence[int] = RUNGS, show_progress: bool = True
) -> "pandas.DataFrame":
    """Attacks on shipped runs, from a grid over `run`, "name:variant", and `scope`.

    Returns one row for each run, scope and number of `steps`: the divergence `attacked`, in nats, that the attack
    reaches, and the `accuracy` under its masks.
    """
    import pandas

    rows, points = [], points_of(grid)
    for point in progress(points, total=len(points), description="ladders", show=show_progress, unit="run"):
        run = shipped(*point["run"].split(":"))
        began, sequences = time.perf_counter(), sequences_of(run)
        x = sequences(N_INPUTS, generator(run.seed, "evaluation"))
        for steps in rungs:
            worst = attack(run, x, steps, point["scope"], show_progress=False)
            with torch.no_grad():
                right = sequences.accuracy(run.components(x, worst.masks).output, x)
            rows.append(point | {"steps": steps, "attacked": worst.error, "accuracy": right})
        for row in rows[-len(rungs) :]:
            row |= {"seconds": time.perf_counter() - began, "error": None}
    return pandas.DataFrame(rows)
