"""Exercises on APD's Lp formulation (notebook 11): its minimality loss, split components, and columns of their own."""

import torch
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws


def _in_pieces(a: float, length: float, p: float, n: int) -> Tensor:
    minimality = n * (a / n) ** p
    return torch.tensor([minimality, minimality * length / n])


def _rows() -> list[tuple[Tensor, float, int]]:
    """Attributions of rows that are not all zero, an exponent, and the size of the whole batch."""
    tables = zip(draws([(7, 3)], [(4, 5)], [(6, 2)], uniform=True), (0.9, 1.0, 0.3), (20, 4, 11), strict=True)
    return [(torch.tensor([[1.0, 4.0], [0.0, 9.0]]), 0.5, 4), *((A, p, batch_size) for (A,), p, batch_size in tables)]


def _shares() -> tuple[tuple[Tensor], ...]:
    separate = torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.3, 0.7], [0.0, 0.6, 0.1]])
    shared = torch.tensor([[0.9, 0.8, 0.0, 0.0], [0.1, 0.0, 0.2, 0.0], [0.0, 0.2, 0.8, 0.55], [0.0, 0.0, 0.0, 0.45]])
    half = torch.tensor([[0.5, 0.1], [0.4, 0.9]])
    near = torch.tensor([[0.51, 0.49, 0.0], [0.0, 0.5, 0.52], [0.47, 0.0, 0.48], [0.02, 0.01, 0.0]])
    whole = (torch.full((5, 5), 0.2),), (torch.eye(4)[:, [2, 0, 1, 3]],)
    return (half,), (separate,), (shared,), (near,), *whole


lp_minimality = Check(
    "lp_minimality",
    lambda A, p, batch_size: A.pow(p).sum() / batch_size,
    _rows,
    {
        "you also took the mean over components; take their sum.": lambda A, p, batch_size: (
            A.pow(p).sum() / batch_size / A.shape[1]
        ),
        "divide by the batch size: rows of zeros count, though they add nothing.": lambda A, p, batch_size: (
            A.pow(p).sum(dim=1).mean()
        ),
        "the power belongs to each attribution, not to their sum.": lambda A, p, batch_size: (
            A.sum(dim=1).pow(p).sum() / batch_size
        ),
        "the power belongs to each attribution, before the mean.": lambda A, p, batch_size: (A.sum() / batch_size) ** p,
        "that is the sum over the batch; take its mean.": lambda A, p, batch_size: A.pow(p).sum(),
        "the exponent p is missing.": lambda A, p, batch_size: A.sum() / batch_size,
    },
)

in_pieces = Check(
    "in_pieces",
    _in_pieces,
    lambda: [(1.0, 2.0, 0.5, 4), (0.3, 2.0, 0.9, 5), (2.0, 0.7, 0.7, 2), (0.6, 1.5, 0.8, 1)],
    {
        "each piece is shorter as well as less active: its length is length / n.": lambda a, length, p, n: torch.tensor(
            [n * (a / n) ** p, n * (a / n) ** p * length]
        ),
        "those are the losses of one piece; there are n of them.": lambda a, length, p, n: (
            _in_pieces(a, length, p, n) / n
        ),
        "a piece has the attribution a / n, not a.": lambda a, length, p, n: torch.tensor([n * a**p, a**p * length]),
        "those are both numbers before the cut.": lambda a, length, p, n: torch.tensor([a**p, a**p * length]),
        "minimality comes first, then simplicity.": lambda *arguments: _in_pieces(*arguments).flip(0),
    },
)

own_columns = Check(
    "own_columns",
    lambda shares: int(((shares > 0.5).sum(dim=1) == 1).sum()),
    _shares,
    {
        "you also count components that hold more than half of two columns; leave these out.": lambda shares: int(
            (shares > 0.5).any(dim=1).sum()
        ),
        "you count all columns that some component holds, even columns that share a component.": lambda shares: int(
            (shares > 0.5).any(dim=0).sum()
        ),
        "more than half means above 0.5; you also count exactly half.": lambda shares: int(
            ((shares >= 0.5).sum(dim=1) == 1).sum()
        ),
        "to hold the largest share of a column is not enough; it must be more than half.": lambda shares: len(
            shares.argmax(dim=0).unique()
        ),
    },
)
