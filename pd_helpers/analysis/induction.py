"""What each subcomponent of an induction network does, from the weights and the task alone.

Two mechanisms are known to be there (`targets.induction`). For each of the matrices q, k, v, o of a layer its
subcomponents' contributions to that mechanism are numbers that add up exactly to what all of them do together. A
subcomponent counts only at those positions where it is important, g > 0.1, for that is where the decomposition claims
that it is needed:

    previous token    q, k of layer 0: the contrast of scores between the marker's successor and the marker
                      v, o of layer 0: what they add to the contrast of layer 1's score at the marker's successor
    induction         q, k of layer 1: the contrast of scores between the last position and the marker's successor
                      v, o of layer 1: what they add to the logit of the answer, less the mean over all tokens

The subcomponents that carry a mechanism are the fewest that make 99% of each sum (`attention.fewest`).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pd_helpers.analysis import attention, metrics
from pd_helpers.analysis.decomposed import Decomposed
from pd_helpers.targets.induction import InductionNetwork


class Contributions(NamedTuple):
    """What pairs of q and k, and single subcomponents of v and o, contribute to one mechanism."""

    pairs: Float[Tensor, "heads C_q C_k"]
    values: Float[Tensor, " C_v"]
    outputs: Float[Tensor, " C_o"]

    def carriers(self, share: float = attention.SHARE) -> dict[str, Bool[Tensor, " C"]]:
        """Matrix (q, k, v, o) → which of its subcomponents carry the mechanism."""
        of_pairs = attention.fewest(self.pairs, share).any(dim=0)
        return {
            "q": of_pairs.any(dim=1),
            "k": of_pairs.any(dim=0),
            "v": attention.fewest(self.values, share),
            "o": attention.fewest(self.outputs, share),
        }


def induction_network(run: Decomposed) -> InductionNetwork:
    """The induction network of two layers that the run decomposes; raises TypeError if it decomposes another."""
    if not isinstance(run.target, InductionNetwork) or len(run.target.blocks) != 2:
        raise TypeError(
            f"run must decompose an InductionNetwork of two layers, but decomposes a {type(run.target).__name__}"
        )
    return run.target


@torch.no_grad()
def previous_token(run: Decomposed, x: Int[Tensor, "batch length"]) -> Contributions:
    """What subcomponents of layer 0 contribute to attending to a marker just before, and to telling layer 1 of it."""
    net = induction_network(run)
    masks = important(run, x)
    scores = attention.pairs(run, x, "blocks.0.q", "blocks.0.k", net.blocks[0].n_heads, masks)
    entering = run.components.entering(x)
    second = net.blocks[1]
    q = second.by_head(second.q(entering["blocks.1.q"][:, -1:]))  # (batch, heads, 1, d_head)
    W_K = second.k.weight.unflatten(0, (second.n_heads, -1))  # (heads, d_head, d)
    reads = torch.einsum("bhqe,hed->bd", q, W_K) / q.shape[-1] ** 0.5  # what the last query looks for in the stream
    place = net.sequences.places(x) + 1
    along = _passed_on(run, 0, entering, masks, reads)
    return Contributions(scores.contrast(place, place - 1), *(_contrast(each, place) for each in along))


@torch.no_grad()
def induction(run: Decomposed, x: Int[Tensor, "batch length"]) -> Contributions:
    """What subcomponents of layer 1 contribute to attending to the marker's successor, and to the answer's logit."""
    net = induction_network(run)
    masks = important(run, x)
    scores = attention.pairs(run, x, "blocks.1.q", "blocks.1.k", net.blocks[1].n_heads, masks)
    W_U = net.unembed.weight
    reads = W_U[net.sequences.answers(x)] - W_U.mean(dim=0)  # (batch, d)
    along = _passed_on(run, 1, run.components.entering(x), masks, reads)
    of_last = [each[:, -1].mean(dim=0) for each in along]
    place = net.sequences.places(x) + 1
    return Contributions(scores.contrast(torch.full_like(place, x.shape[1] - 1), place), *of_last)


def important(run: Decomposed, x: Int[Tensor, "batch length"]) -> dict[str, Float[Tensor, "batch length C"]]:
    """Use → 1 where a subcomponent is important, g > 0.1, and 0 elsewhere: masks."""
    return {use: (g > metrics.ALIVE).to(g.dtype) for use, g in run.importances(x).items()}


def _passed_on(
    run: Decomposed, i: int, entering: dict[str, Tensor], masks: dict[str, Tensor], reads: Float[Tensor, "batch d"]
) -> tuple[Tensor, Tensor]:
    """What each subcomponent of v, and of o, of a layer adds to the stream along `reads`, (batch, length, C) each.

    Subcomponents of v pass through the target's own o, those of o read the target's own mixture.
    """
    net, model = induction_network(run), run.components
    block, path = net.blocks[i], f"blocks.{i}."
    stream = entering[path + "v"]
    pattern = block.pattern(stream, net.positions[: stream.shape[-2]])
    inner = model.inner(entering)
    v, o = (inner[path + name].squeeze(-1) * masks[path + name] for name in "vo")  # (batch, length, C)
    U_v = model.layers[path + "v"].U.squeeze(-1).unflatten(1, (block.n_heads, -1))  # (C, heads, d_head)
    W_O = block.o.weight.unflatten(1, (block.n_heads, -1))  # (d, heads, d_head)
    written = torch.einsum("che,dhe,bd->bch", U_v, W_O, reads)  # what o makes of each, head by head
    of_values = torch.einsum("bhqk,bkc,bch->bqc", pattern, v, written)
    return of_values, o * (reads @ model.layers[path + "o"].U.squeeze(-1).T).unsqueeze(1)


def _contrast(along: Float[Tensor, "batch length C"], place: Int[Tensor, " batch"]) -> Float[Tensor, " C"]:
    """Mean over inputs of what is added at one position, less the mean over all others."""
    there = along[torch.arange(len(along)), place]
    return (there - (along.sum(dim=1) - there) / (along.shape[1] - 1)).mean(dim=0)
