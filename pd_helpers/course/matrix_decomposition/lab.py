"""A lab on matrix decompositions: how many terms, by which method."""

from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers import plots
from pd_helpers.analysis import metrics
from pd_helpers.core.training import checked_seed
from pd_helpers.course.kit.lab import Description, Lab, menu, whole, wipe
from pd_helpers.course.matrix_decomposition import ideas


class TermsValues(NamedTuple):
    """A matrix as a sum of terms."""

    method: str
    terms: Float[Tensor, "C 2 n"]
    """Singular vectors are never more than two."""
    shares: Float[Tensor, "C n"]
    """Share of each column in each term."""
    left_over: float
    """Share of the matrix's squared length that the terms do not add up to."""
    terms_used: float
    """Terms that put something into a column, on average over columns."""


class TermsLab(Lab):
    """Write a 2 × n matrix as a sum of rank-one terms: choose the method and how many; instant.

    Left: columns of each term in its colour, of their sum in black, of the matrix in grey. Right: which share of each
    column is in each term.

    >>> TermsLab(W)  # (2, n), n up to 7
    """

    METHODS = ("singular vectors", "non-negative factors", "one term for each arrow", "random directions")

    def __init__(self, W: Tensor, seed: int = 0):
        if W.dim() != 2 or W.shape[0] != 2 or not 2 <= W.shape[1] <= 7 or not W.isfinite().all():
            raise ValueError("W must be a (2, n) matrix with 2 to 7 finite columns, which are arrows in a plane")
        self.W, self.seed = W.detach(), checked_seed(seed)
        self._terms = cache(self._decompose)
        self.method = menu("method", self.METHODS)
        self.n_terms = whole("number of terms", 2, W.shape[1], low=1)
        controls = [self.method, self.n_terms]
        super().__init__(controls, 9.0, 4.0, 1, 2)
        self.on_move(controls, self.update)
        self.update()

    def _decompose(self, method: str, n_terms: int) -> Tensor:
        """The terms (C, 2, n) of one method."""
        if method == "singular vectors":
            return ideas.svd_terms(self.W, n_terms)
        if method == "non-negative factors":
            return ideas.nmf_terms(self.W, n_terms, self.seed)
        if method == "one term for each arrow":
            return ideas.one_term_each(self.W, n_terms)[0]
        return ideas.overcomplete(self.W, n_terms, torch.Generator().manual_seed(self.seed))

    def compute(self) -> TermsValues:
        """Decompose the matrix as the controls say; every decomposition is computed once."""
        W, terms = self.W, self._terms(self.method.value, self.n_terms.value)
        shares, n_used = metrics.column_shares(terms, W), ideas.terms_used(terms, W).mean().item()
        return TermsValues(self.method.value, terms, shares, ideas.left_over(terms, W), n_used)

    def draw(self, values: TermsValues) -> None:
        """Draw the arrows and the table of shares."""
        terms, W = values.terms, self.W
        arrows, heat = self.axes[0]
        for ax in self.axes[0]:
            wipe(ax)
        limit, n = 1.5 * float(W.norm(dim=0).max()), W.shape[1]
        plots.columns(arrows, W, colors=["0.85"] * n, width=6, limit=limit)
        plots.columns(arrows, terms.sum(dim=0), colors=["0.2"] * n, labels=False, width=1.2, limit=limit)
        for c, term in enumerate(terms):
            look = {"style": ["-", "--", "-.", ":"][c % 4], "width": 2.0, "limit": limit}
            plots.columns(arrows, term, colors=[plots.color(c)] * n, labels=False, **look)
        arrows.set_title("terms in colour, their sum in black", fontsize=10, y=1)
        plots.matrix(heat, values.shares.round(decimals=2) + 0.0, limit=1)  # + 0.0 makes -0.0 zero
        heat.set(xlabel="arrow", ylabel="term")
        heat.set_title("share of each arrow in each term", fontsize=10, y=1)

    def describe(self, values: TermsValues) -> Description:
        """What is missing from the sum, and how many terms an arrow uses."""
        return Description(
            f'<span class="pdh-left">{values.left_over:.1%}</span> of the squared length is missing · '
            f'<span class="pdh-used">{values.terms_used:.1f}</span> terms used by an arrow, on average',
            f"{values.method.capitalize()}, {len(values.terms)} in number: {values.left_over:.1%} of the matrix's "
            f"squared length is missing from their sum, and an arrow is put together from {values.terms_used:.1f} "
            "terms on average.",
        )
