"""An induction head's decomposition put to the test: sequences as text, ablations, edits, controls and attacks."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pd_helpers.analysis import induction
from pd_helpers.analysis.attacks import attack
from pd_helpers.analysis.decomposed import Decomposed
from pd_helpers.core.config import shown
from pd_helpers.core.training import generator, progress
from pd_helpers.runs.shipped import shipped
from pd_helpers.runs.sweeps import points_of
from pd_helpers.targets.induction import InductionConfig, InductionSequences

if TYPE_CHECKING:
    import pandas

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-"
"""Characters that stand for tokens 0 to 63."""
BOS, MARKER = "^", "*"
"""Characters that stand for the beginning of a sequence and for the marker S."""
RUNGS = (0, 1, 5, 20, 80, 320, 1280)
"""Numbers of steps of the attacks that make a ladder."""
N_INPUTS = 256
"""Sequences that are attacked together."""

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
    sizes = InductionConfig.sizes(run.target)
    if sizes is None:
        raise TypeError(
            f"run must decompose an InductionNetwork, but decomposes a {type(run.target).__name__}; "
            "pdh.shipped('vpd/induction') works"
        )
    return InductionSequences(sizes["vocabulary"], sizes["length"])


def carriers(run: Decomposed, x: Int[Tensor, "batch length"]) -> Groups:
    """The subcomponents that carry each of the two mechanisms, by the rule of `analysis.induction`."""
    sequences = sequences_of(run)
    found = {
        "previous token": (0, induction.previous_token(run, x, sequences)),
        "induction": (1, induction.induction(run, x, sequences)),
    }
    return {
        name: {f"blocks.{i}.{matrix}": on.nonzero().flatten().tolist() for matrix, on in each.carriers().items()}
        for name, (i, each) in found.items()
    }


def switched(run: Decomposed, off: Mapping[str, Collection[int]]) -> dict[str, Float[Tensor, " C"]]:
    """Masks of all matrices, 0 for the subcomponents in `off` and 1 for the others."""
    masks = {}
    for use, (layer, _) in run.components.uses.items():
        masks[use] = torch.ones(run.components.layers[layer].C, device=run.components.factors[0].device)
        masks[use][list(off.get(use, ()))] = 0
    return masks


def all_but(run: Decomposed, kept: Sequence[Mapping[str, Collection[int]]]) -> dict[str, list[int]]:
    """Matrix → numbers of the subcomponents that are in none of the groups `kept`."""
    return {
        use: sorted(set(range(run.components.layers[layer].C)) - {c for group in kept for c in group.get(use, ())})
        for use, (layer, _) in run.components.uses.items()
    }


@torch.no_grad()
def accuracy_without(run: Decomposed, x: Int[Tensor, "batch length"], off: Mapping[str, Collection[int]]) -> float:
    """Share of right answers with some subcomponents switched off at all positions, and all others on."""
    masks = {use: mask.expand(*x.shape, -1) for use, mask in switched(run, off).items()}
    return sequences_of(run).accuracy(run.components(x, masks).output, x)


@torch.no_grad()
def ahead(run: Decomposed, x: Int[Tensor, "batch length"], queries: Collection[int], k: int) -> nn.Module:
    """A copy of the network that copies the token k places after the marker's; k = 1 is the network's own task.

    Layer 0 should attend k places back in place of one. Its query at position t must therefore be the one that it has
    had at t - (k - 1). What some subcomponents of q read there is, up to the tokens, a linear function of what they
    read at t, since sines and cosines of shifted positions are; least squares over the positions of x finds it, and U
    is rewritten accordingly. Nothing is trained.
    """
    path = "blocks.0.q"
    layer, reads = run.components.layers[path], run.components.inner(run.components.entering(x))[path].squeeze(-1)
    chosen = sorted(queries)
    reads = reads[..., chosen]  # (batch, length, n)
    now, before = reads[:, k - 1 :].flatten(0, 1), reads[:, : reads.shape[1] - (k - 1)].flatten(0, 1)
    M = torch.linalg.lstsq(now, before).solution  # now @ M ≈ before
    U = M @ layer.U[chosen].squeeze(-1)  # (n, d_out): Σ_c before_c U_c ≈ Σ_c now_c (M U)_c
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
            found = attack(run, x, steps, point["scope"], show_progress=False)
            with torch.no_grad():
                right = sequences.accuracy(run.components(x, found.masks).output, x)
            rows.append(point | {"steps": steps, "attacked": found.error, "accuracy": right})
        for row in rows[-len(rungs) :]:
            row |= {"seconds": time.perf_counter() - began, "error": None}
    return pandas.DataFrame(rows)
