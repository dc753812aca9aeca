"""Classical ways to write a matrix as a sum of rank-one terms (notebook 01).

    W = Σ_c u_c v_cᵀ          terms (C, d_out, d_in), with the number of the term as the first dimension

svd_terms         orthogonal terms σ u vᵀ, at most as many as the rank
nmf_terms         non-negative factors; the positive and the negative part of a matrix with signs are stacked
overcomplete      random directions, any number of them, that add up exactly
one_term_each     every column belongs to a single term, so that columns of the same term lie on a line
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from pd_helpers.course.kit.partitions import Groups, partitions

Terms = Float[Tensor, "C d_out d_in"]


def five_arrows() -> Float[Tensor, "two five"]:
    """The 2 × 5 matrix of notebook 01, in float64."""
    from pd_helpers.runs.shipped import shipped

    return shipped("apd/tms_5-2").target.embed.weight.detach().double()


def svd_terms(W: Float[Tensor, "d_out d_in"], n_terms: int | None = None) -> Terms:
    """The `n_terms` largest terms of the singular value decomposition, whose sum is the closest of that many terms."""
    u, sigma, v = torch.linalg.svd(W, full_matrices=False)
    return torch.einsum("ic,c,cj->cij", u, sigma, v)[:n_terms]


def nmf_terms(W: Float[Tensor, "d_out d_in"], n_terms: int, seed: int = 0) -> Terms:
    """Non-negative matrix factorisation (scikit-learn) of the stacked positive and negative parts of W.

    A term is (u⁺ − u⁻) vᵀ with v ≥ 0: a direction, and how much of it each column contains.
    """
    from sklearn.decomposition import NMF

    stacked = torch.cat([W.clamp(min=0), (-W).clamp(min=0)]).numpy()
    model = NMF(n_terms, init="random", random_state=seed, max_iter=20_000, tol=1e-10)
    u, v = torch.from_numpy(model.fit_transform(stacked)), torch.from_numpy(model.components_)
    positive, negative = u.split(len(W))
    return torch.einsum("ic,cj->cij", positive - negative, v).to(W)


def overcomplete(W: Float[Tensor, "d_out d_in"], n_terms: int, generator: Generator) -> Terms:
    """Terms with random directions u and the shortest v for which they add up to W.

    For fewer terms than the rank of W they do not add up to W, but come as close to it as these directions allow.
    """
    u = torch.nn.functional.normalize(torch.randn(len(W), n_terms, generator=generator).to(W), dim=0)
    return torch.einsum("ic,cj->cij", u, torch.linalg.pinv(u) @ W)


def one_term_each(W: Float[Tensor, "d_out d_in"], n_terms: int) -> tuple[Terms, Groups]:
    """The closest sum of `n_terms` rank-one terms in which every column belongs to one term, and the groups of columns.

    It tries every grouping, which is feasible for few columns. The best term of a group is its first singular term.
    """
    lowest_error, best_terms, groups = torch.inf, None, ()
    for grouping in partitions(W.shape[1]):
        if len(grouping) != n_terms:
            continue
        terms = torch.zeros(n_terms, *W.shape, dtype=W.dtype)
        for c, group in enumerate(grouping):
            columns = list(group)
            terms[c][:, columns] = svd_terms(W[:, columns], 1)[0]
        error = (W - terms.sum(dim=0)).square().sum()
        if error < lowest_error:
            lowest_error, best_terms, groups = error, terms, grouping
    return best_terms, groups


def terms_used(terms: Terms, W: Float[Tensor, "d_out d_in"], tolerance: float = 0.01) -> Float[Tensor, " d_in"]:
    """How many terms contribute to each column, with more than `tolerance` of the column's length."""
    return (terms.norm(dim=1) > tolerance * W.norm(dim=0)).sum(dim=0).double()


def left_over(terms: Terms, W: Float[Tensor, "d_out d_in"]) -> float:
    """The squared length of what the terms leave of W, as a share of the squared length of W."""
    return ((W - terms.sum(dim=0)).square().sum() / W.square().sum()).item()
