"""Attention, pair by pair: which query subcomponent looks for which key subcomponent (VPD; frontier of this course)?

    score of head h from position t to t'  =  Σ_{c, c'}  (V_Qc · a_t) (U_Qc^h · U_Kc'^h) (V_Kc' · b_t') / √d_head

where a and b are what the query and the key matrix read, and U^h is the part of U that head h uses. The sum over all
pairs is exact, up to W − Σ_c U_c V_c. A softmax ignores what all keys of a query have in common, so what a pair does is
the difference between the scores that it gives, its contrast.

    pairs          the scores of a layer, as numbers of queries, keys and pairs
    patterns       softmax of the scores, with masks or without
    head_shares    how much of a subcomponent lies in each head
    fewest         the fewest contributions, largest first, that make a share of their sum
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pd_helpers.analysis.decomposed import Decomposed
from pd_helpers.analysis.masking import check_name
from pd_helpers.core.components import Components
from pd_helpers.core.config import shown
from pd_helpers.core.networks.batches import Inputs

SHARE = 0.99
"""Share of a sum that the contributions which are said to carry it make together."""


class Pairs(NamedTuple):
    """The scores of one attention layer before the softmax, as a sum over pairs (c, c') of subcomponents of Q and K."""

    queries: Float[Tensor, "batch length C_q"]
    """V_Qc · a_t, what each query subcomponent reads at each position."""
    keys: Float[Tensor, "batch length C_k"]
    """V_Kc' · b_t', likewise for keys."""
    products: Float[Tensor, "heads C_q C_k"]
    """U_Qc^h · U_Kc'^h / √d_head."""
    lengths: tuple[Float[Tensor, " C_q"], Float[Tensor, " C_k"]]
    """‖V_Qc‖ and ‖V_Kc'‖."""

    @property
    def scores(self) -> Float[Tensor, "batch heads length length"]:
        """The sum over all pairs, of every query position and every key position."""
        return torch.einsum("bqc,hcd,bkd->bhqk", self.queries, self.products, self.keys)

    def of(self, query: int, key: int) -> Float[Tensor, "batch heads length length"]:
        """The scores that one pair gives."""
        reads = self.queries[:, :, None, query] * self.keys[:, None, :, key]  # (batch, length, length)
        return reads.unsqueeze(1) * self.products[:, query, key].view(1, -1, 1, 1)

    @property
    def static(self) -> Float[Tensor, "heads C_q C_k"]:
        """‖V_Qc‖ ‖V_Kc'‖ U_Qc^h · U_Kc'^h / √d_head, signed by the mean of what each of the two reads.

        It depends on the inputs by these signs alone: how strong a pair could be, not how strong it is.
        """
        (of_queries, of_keys), mean = self.lengths, lambda reads: reads.mean(dim=(0, 1)).sign()
        signed = (of_queries * mean(self.queries))[:, None] * (of_keys * mean(self.keys))
        return signed * self.products

    def at_offset(self, queries: Int[Tensor, " batch"], offset: int) -> Float[Tensor, "heads C_q C_k"]:
        """Every pair's mean score from one query position of each input to the key at that distance before it.

        Inputs that have no key there are left out.
        """
        inside = queries >= offset
        row = torch.arange(len(queries), device=queries.device)[inside]
        q, k = self.queries[row, queries[inside]], self.keys[row, queries[inside] - offset]
        return q.T @ k / len(row) * self.products

    def contrast(self, queries: Int[Tensor, " batch"], places: Int[Tensor, " batch"]) -> Float[Tensor, "heads C_q C_k"]:
        """Every pair's mean score from one query position of each input to one key position, less that to other keys.

        Other keys are those that the query may see, at its own position and before; a softmax ignores what all of them
        have in common. Queries must be at position 1 or later.
        """
        row = torch.arange(len(queries), device=queries.device)
        q, there = self.queries[row, queries], self.keys[row, places]  # (batch, C_q), (batch, C_k)
        others = (self.keys.cumsum(dim=1)[row, queries] - there) / queries.unsqueeze(1)
        return q.T @ (there - others) / len(row) * self.products


@torch.no_grad()
def pairs(
    run: Decomposed,
    x: Inputs,
    query: str,
    key: str,
    n_heads: int = 1,
    masks: Mapping[str, Float[Tensor, "batch length C"]] | None = None,
) -> Pairs:
    """The scores of an attention layer, pair by pair, on these inputs in the target's own forward pass.

    Args:
        run: a run by a method with rank-one subcomponents, such as SPD.
        x: inputs, as the network takes them.
        query, key: paths of the two matrices of the layer.
        n_heads: heads of the layer, which share the rows of both matrices equally, in order.
        masks: use → masks, by which what each subcomponent reads is multiplied; None leaves all as they are.

    >>> analysis.attention.pairs(run, x, "blocks.0.q", "blocks.0.k").scores   # (batch, heads, length, length)

    Raises ValueError for a path that is not decomposed, and for matrices that cannot make such scores.
    """
    model = run.components
    for name, path in (("query", query), ("key", key)):
        check_name(name, path, model.uses)
        if model.uses[path].transposed or model.layers[model.uses[path].layer].rank != 1:
            raise ValueError(f"{name} is {path!r}, whose components are no rank-one matrices; a run of SPD works")
    Q, K = (model.layers[model.uses[path].layer] for path in (query, key))
    if Q.d_out != K.d_out or Q.d_out % n_heads:
        raise ValueError(
            f"n_heads is {shown(n_heads)}, but {query!r} has {Q.d_out} rows and {key!r} has {K.d_out}, which heads "
            "cannot share; 1 works for two matrices of as many rows"
        )
    inner = model.inner(model.entering(x))
    U_Q, U_K = (layer.U.squeeze(-1).unflatten(1, (n_heads, -1)) for layer in (Q, K))  # (C, heads, d_head)
    products = torch.einsum("chd,ehd->hce", U_Q, U_K) / U_Q.shape[-1] ** 0.5
    lengths = tuple(layer.V.flatten(1).norm(dim=1) for layer in (Q, K))
    reads = {path: inner[path].squeeze(-1) * (1.0 if masks is None else masks[path]) for path in (query, key)}
    return Pairs(reads[query], reads[key], products, lengths)


def patterns(scores: Float[Tensor, "*batch queries keys"]) -> Float[Tensor, "*batch queries keys"]:
    """Causal attention: softmax over the keys that each query may see, which are those at its position and before."""
    n, m = scores.shape[-2:]
    later = torch.ones(n, m, dtype=torch.bool, device=scores.device).triu(m - n + 1)
    return scores.masked_fill(later, -torch.inf).softmax(dim=-1)


@torch.no_grad()
def head_shares(layer: Components, n_heads: int, *, reads: bool = False) -> Float[Tensor, "C heads"]:
    """Share of each subcomponent's squared length that lies in each head: of U for q, k and v, of V (`reads`) for o."""
    sides = layer.V.mT if reads else layer.U  # (C, d, R)
    squares = sides.unflatten(1, (n_heads, -1)).square().sum(dim=(2, 3))
    return squares / squares.sum(dim=1, keepdim=True).clamp(min=torch.finfo(squares.dtype).tiny)


def fewest(contributions: Float[Tensor, "*shape"], share: float = SHARE) -> Bool[Tensor, "*shape"]:
    """The fewest contributions, largest first, that make this share of the sum of all; none if that is not positive.

    This is the rule by which pairs and subcomponents are said to carry something. It is fixed beforehand and looks at
    numbers only.
    """
    flat = contributions.flatten()
    order = flat.argsort(descending=True)
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    if flat.sum() > 0:
        n = int((flat[order].cumsum(dim=0) < share * flat.sum()).sum()) + 1
        chosen[order[:n]] = True
    return chosen.view(contributions.shape)
