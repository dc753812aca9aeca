"""How good is a decomposition? MMCS and ML2R (APD eqs. 3 and 4), alive components, L0, and the identity pattern.

    MMCS = mean over columns j of max_c cos(P_c[:, j], W[:, j])
    ML2R = mean over columns j of ‖P_c*[:, j]‖ / ‖W[:, j]‖

Here c* is the component that attains the maximum in MMCS.

Of a layer of one's own network, `of_layer` computes both from the factors U and V, without ever building a matrix P_c.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pd_helpers.core.components import ComponentModel
from pd_helpers.core.config import shown

ALIVE = 0.1
"""A subcomponent counts as active on an input if its causal importance exceeds this."""


def best_match(
    P: Float[Tensor, "C d_out d_in"], W: Float[Tensor, "d_out d_in"]
) -> tuple[Float[Tensor, " d_in"], Float[Tensor, " d_in"]]:
    """For each column of W, the component whose same column has the largest cosine similarity with it.

    Returns these cosines and the ratios of lengths ‖P_c*[:, j]‖ / ‖W[:, j]‖, both (d_in,). A column of zeros has
    cosine 0 and ratio 0.
    """
    cosines = F.cosine_similarity(P, W.unsqueeze(0), dim=1, eps=1e-12)  # (C, d_in)
    best, c = cosines.max(dim=0)
    lengths, target = P.norm(dim=1).gather(0, c.unsqueeze(0)).squeeze(0), W.norm(dim=0)
    return best, torch.where(target > 0, lengths / target, 0.0)


def mmcs(P: Float[Tensor, "C d_out d_in"], W: Float[Tensor, "d_out d_in"]) -> float:
    """Mean max cosine similarity (APD eq. 3): 1 if every column of W is a column of some component, up to length."""
    return best_match(P, W)[0].mean().item()


def ml2r(P: Float[Tensor, "C d_out d_in"], W: Float[Tensor, "d_out d_in"]) -> float:
    """Mean L2 ratio (APD eq. 4): the length of the best matching columns over the target's; below 1 is shrinkage."""
    return best_match(P, W)[1].mean().item()


class Match(NamedTuple):
    """For each column of a weight matrix W, how well its best component matches it."""

    cosines: Float[Tensor, " d_in"]
    """max_c cos(P_c[:, j], W[:, j])."""
    ratios: Float[Tensor, " d_in"]
    """‖P_c*[:, j]‖ / ‖W[:, j]‖ of the component c* that attains it."""

    @property
    def mmcs(self) -> float:
        """Mean max cosine similarity (APD eq. 3)."""
        return self.cosines.mean().item()

    @property
    def ml2r(self) -> float:
        """Mean L2 ratio (APD eq. 4)."""
        return self.ratios.mean().item()


@torch.no_grad()
def of_layer(model: ComponentModel, layer: str) -> Match:
    """The match of a decomposed layer's columns with its components, of any size.

    Nothing measures it by itself: the columns of W are mechanisms only where each input of the layer is a feature.

    >>> metrics.of_layer(run.components, "fc1").mmcs

    Raises ValueError for a layer that is not decomposed.
    """
    if layer not in model.layers:
        known = ", ".join(map(repr, model.layers))
        raise ValueError(f"layer must be one that is decomposed, but is {shown(layer)}; {known} works")
    return factor_match(model.layers[layer].U, model.layers[layer].V, model.targets[layer])


LARGEST_PIECE = 2**22
"""Numbers in the largest array of `factor_match`, unless a single component takes more: 32 MB."""


@torch.no_grad()
def factor_match(U: Float[Tensor, "C d_out R"], V: Float[Tensor, "C R d_in"], W: Float[Tensor, "d_out d_in"]) -> Match:
    """`best_match` of P_c = U_c V_c, up to rounding, for a few components at a time, none of which is ever built:

    ⟨P_c[:, j], W[:, j]⟩ = V_c[:, j]ᵀ (U_cᵀ W)[:, j]   and   ‖P_c[:, j]‖² = V_c[:, j]ᵀ (U_cᵀ U_c) V_c[:, j].

    Since factors can cancel, it is computed in 64 bits, where the device has them.
    """
    dtype = W.dtype if W.device.type == "mps" else torch.float64
    lengths = W.to(dtype).norm(dim=0)  # (d_in,)
    best, ratios = torch.full_like(lengths, -2), torch.zeros_like(lengths)
    n = max(1, LARGEST_PIECE // V[0].numel())
    for u, v in zip(U.split(n), V.split(n), strict=True):
        u, v = u.mT.to(dtype), v.to(dtype)  # (n, R, d_out), (n, R, d_in)
        squares = ((u @ u.mT @ v) * v).sum(dim=1).clamp(min=0)  # (n, d_in)
        products = ((u @ W.to(dtype)) * v).sum(dim=1)
        cosines = products / (squares.sqrt().clamp(min=1e-12) * lengths.clamp(min=1e-12))
        cosine, c = cosines.max(dim=0)
        ratio = torch.where(lengths > 0, squares.sqrt().gather(0, c.unsqueeze(0)).squeeze(0) / lengths, 0.0)
        ratios = torch.where(cosine > best, ratio, ratios)
        best = torch.maximum(best, cosine)
    return Match(best.clamp(-1, 1).to(W.dtype), ratios.to(W.dtype))


def column_shares(P: Float[Tensor, "C d_out d_in"], W: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "C d_in"]:
    """Share of each column of W that lies in each component, measured along the column; if ΣP = W they add up to 1."""
    return (P * W).sum(dim=1) / W.square().sum(dim=0)


def own_columns(P: Float[Tensor, "C d_out d_in"], W: Float[Tensor, "d_out d_in"]) -> int:
    """Number of components that hold more than half of exactly one column of W, which is then a column of their own."""
    return int(((column_shares(P, W) > 0.5).sum(dim=1) == 1).sum())


def alive(g: Float[Tensor, "*rows C"]) -> Bool[Tensor, " C"]:
    """Which components are active, that is above 0.1, on some row; for APD `g` is the 0/1 mask of active components."""
    return (g > ALIVE).flatten(0, -2).any(dim=0)


def l0(g: Float[Tensor, "*rows C"], weights: Float[Tensor, " inputs"] | None = None) -> float:
    """Mean number of active components per row, where row i stands for `weights[i]` rows if the rows are the inputs."""
    active = (g > ALIVE).sum(dim=-1).to(g.dtype)
    if weights is None or active.shape != weights.shape:
        return active.mean().item()
    return (active @ weights.to(active) / weights.sum()).item()


def identity_ci_error(g: Float[Tensor, "d_in C"], dense_rank: int | None = None) -> int:
    """Number of entries in which the importances for the inputs 0.75·I miss their ideal pattern; 0 is perfect.

    Without `dense_rank` the ideal is one component for each input: after the best one-to-one match, diagonal entries
    below 0.9 and off-diagonal entries above 0.1 count as errors. With it, the ideal is that `dense_rank` components are
    active on every input and no others: after sorting the columns by their sums, each of the first `dense_rank` columns
    without an entry of at least 0.9 counts as an error, and so does each entry above 0.1 in the other columns.
    """
    if dense_rank is None:
        rows, columns = linear_sum_assignment(g.detach().cpu().numpy(), maximize=True)
        matched = torch.zeros_like(g, dtype=torch.bool)
        matched[torch.as_tensor(rows), torch.as_tensor(columns)] = True
        unmatched_rows = len(g) - len(rows)
        return int((g[~matched] > 0.1).sum() + (g[matched] < 0.9).sum()) + unmatched_rows
    order = g.sum(dim=0).argsort(descending=True)
    first, rest = g[:, order[:dense_rank]], g[:, order[dense_rank:]]
    missing = dense_rank - int((first >= 0.9).any(dim=0).sum())
    return missing + int((rest > 0.1).sum())
