"""How good is a decomposition? MMCS and ML2R (APD eqs. 3 and 4), alive components, L0, and the identity pattern.

    MMCS = mean over columns j of max_c cos(P_c[:, j], W[:, j])
    ML2R = mean over columns j of ‖P_c*[:, j]‖ / ‖W[:, j]‖

Here c* is the component that attains the maximum in MMCS.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

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
