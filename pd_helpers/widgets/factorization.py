"""A lab on matrix decompositions: how many terms, by which method."""

import ipywidgets as w
import torch
from torch import Tensor

from pd_helpers import factorization as fz
from pd_helpers import metrics, plots
from pd_helpers.widgets.lab import STYLE, WIDE, Lab, whole


class TermsLab(Lab):
    """Write a 2 × n matrix as a sum of rank-one terms: choose the method and how many; instant.

    Left: columns of each term in its colour, of their sum in black, of the matrix in grey. Right: which share of each
    column is in each term.

    >>> TermsLab(W)  # (2, n), n up to 7
    """

    METHODS = ("singular vectors", "non-negative factors", "one term for each arrow", "random directions")

    def __init__(self, W: Tensor, seed: int = 0):
        if W.dim() != 2 or W.shape[0] != 2 or not 2 <= W.shape[1] <= 7:
            raise ValueError("W must be a (2, n) matrix with 2 to 7 columns, arrows in a plane")
        self.W, self.seed, self._known = W.detach(), seed, {}
        self.method = w.Dropdown(description="method", options=self.METHODS, style=STYLE, layout=WIDE)
        self.n_terms = whole("number of terms", 1, W.shape[1])
        self.n_terms.min, self.n_terms.value = 1, 2
        super().__init__([self.method, self.n_terms], 9.0, 4.0, 1, 2)
        self.on_move((self.method, self.n_terms), self.draw)
        self.draw()

    def terms(self) -> Tensor:
        """The terms (C, 2, n) that the controls ask for; singular vectors are never more than two."""
        key = self.method.value, self.n_terms.value
        if key not in self._known:
            generator = torch.Generator().manual_seed(self.seed)
            make = {
                "singular vectors": lambda n: fz.svd_terms(self.W, n),
                "non-negative factors": lambda n: fz.nmf_terms(self.W, n, self.seed),
                "one term for each arrow": lambda n: fz.one_term_each(self.W, n)[0],
                "random directions": lambda n: fz.overcomplete(self.W, n, generator),
            }
            self._known[key] = make[key[0]](key[1])
        return self._known[key]

    def draw(self) -> None:
        """Show these terms."""
        terms, W = self.terms(), self.W
        arrows, heat = self.axes[0]
        for ax in self.axes[0]:
            ax.clear()
        limit = 1.5 * float(W.norm(dim=0).max())
        plots.columns(arrows, W, colors=["0.85"] * W.shape[1], width=6, limit=limit)
        plots.columns(arrows, terms.sum(dim=0), colors=["0.2"] * W.shape[1], labels=False, width=1.2, limit=limit)
        for c, term in enumerate(terms):
            look = {"style": ["-", "--", "-.", ":"][c % 4], "width": 2.0, "limit": limit}
            plots.columns(arrows, term, colors=[plots.color(c)] * W.shape[1], labels=False, **look)
        arrows.set_title("terms in colour, their sum in black", fontsize=10, y=1)
        share = metrics.column_shares(terms, W)
        plots.matrix(heat, share.round(decimals=2) + 0.0, limit=1)  # + 0.0 makes -0.0 zero
        heat.set(xlabel="arrow", ylabel="term")
        heat.set_title("share of each arrow in each term", fontsize=10, y=1)
        left, used = fz.left_over(terms, W), fz.terms_used(terms, W).mean().item()
        self.refresh(
            f'<span class="pdh-left">{left:.1%}</span> of the squared length is missing · '
            f'<span class="pdh-used">{used:.1f}</span> terms used by an arrow, on average',
            f"{self.method.value.capitalize()}, {len(terms)} in number: {left:.1%} of the matrix's squared length is "
            f"missing from their sum, and an arrow is put together from {used:.1f} terms on average.",
        )
