"""Classical ways to write a matrix as a sum of rank-one terms, each (C, d_out, d_in) with the terms in the first place.

svd_terms         σ u vᵀ, at most rank-many, orthogonal
nmf_terms         nothing may be negative: of a matrix with signs, the positive and negative parts are stacked
overcomplete      random directions, as many as one likes, that add up exactly
one_term_each     every column in a single term: columns that share one are put on a line
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from pd_helpers.description_length import Groups, partitions

Terms = Float[Tensor, "C d_out d_in"]


def five_arrows() -> Float[Tensor, "two five"]:
    """The 2 × 5 matrix of notebook 01, in float64."""
    from pd_helpers.shipping import shipped

    return shipped("apd/tms_5-2").target.embed.weight.detach().double()


def svd_terms(W: Float[Tensor, "d_out d_in"], n_terms: int | None = None) -> Terms:
    """The first terms of the singular value decomposition, the largest first; the closest sum of that many."""
    u, sigma, v = torch.linalg.svd(W, full_matrices=False)
    return torch.einsum("ic,c,cj->cij", u, sigma, v)[:n_terms]


def nmf_terms(W: Float[Tensor, "d_out d_in"], n_terms: int, seed: int = 0) -> Terms:
    """Non-negative matrix factorisation (scikit-learn) of W's positive and negative parts, put together again.

    A term is (u⁺ − u⁻) vᵀ with v ≥ 0: a direction, and how much every column has of it.
    """
    from sklearn.decomposition import NMF

    stacked = torch.cat([W.clamp(min=0), (-W).clamp(min=0)]).numpy()
    model = NMF(n_terms, init="random", random_state=seed, max_iter=20_000, tol=1e-10)
    u, v = torch.from_numpy(model.fit_transform(stacked)), torch.from_numpy(model.components_)
    positive, negative = u.split(len(W))
    return torch.einsum("ic,cj->cij", positive - negative, v).to(W)


def overcomplete(W: Float[Tensor, "d_out d_in"], n_terms: int, generator: Generator) -> Terms:
    """Terms in random directions u, with the shortest v for which they add up to W, if there are rank-many or more."""
    u = torch.nn.functional.normalize(torch.randn(len(W), n_terms, generator=generator).to(W), dim=0)
    return torch.einsum("ic,cj->cij", u, torch.linalg.pinv(u) @ W)


def one_term_each(W: Float[Tensor, "d_out d_in"], n_terms: int) -> tuple[Terms, Groups]:
    """The closest sum of `n_terms` rank-one terms in which every column belongs to one term; which columns go together.

    Tries every grouping, so for few columns. Within a group the best term is its first singular one.
    """
    best, chosen, groups = torch.inf, None, ()
    for grouping in partitions(W.shape[1]):
        if len(grouping) != n_terms:
            continue
        terms = torch.zeros(n_terms, *W.shape, dtype=W.dtype)
        for c, group in enumerate(grouping):
            columns = list(group)
            terms[c][:, columns] = svd_terms(W[:, columns], 1)[0]
        error = (W - terms.sum(dim=0)).square().sum()
        if error < best:
            best, chosen, groups = error, terms, grouping
    return chosen, groups


def terms_used(terms: Terms, W: Float[Tensor, "d_out d_in"], tolerance: float = 0.01) -> Float[Tensor, " d_in"]:
    """How many terms put something into each column: more than `tolerance` of its length."""
    return (terms.norm(dim=1) > tolerance * W.norm(dim=0)).sum(dim=0).double()


def left_over(terms: Terms, W: Float[Tensor, "d_out d_in"]) -> float:
    """Share of W's squared length that the terms do not add up to."""
    return ((W - terms.sum(dim=0)).square().sum() / W.square().sum()).item()
