"""Exercises on SPD across layers (notebook 15): a bound on active pieces, matches across layers, misplaced entries."""

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws


def _most_on(n_pieces: int, probability: float, n_features: int) -> float:
    return n_pieces * (1 - (1 - probability) ** n_features)


most_on = Check(
    "most_on",
    _most_on,
    lambda: [(10, 0.5, 2), (50, 0.01, 100), (25, 0.02, 60), (17, 0.005, 102)],
    {
        "that is the mean number of features that are on; count pieces, on inputs where any feature is on.": (
            lambda n, p, k: p * k
        ),
        "that counts the inputs on which no feature is on; pieces can be important on the others.": lambda n, p, k: (
            n * (1 - p) ** k
        ),
        "the sum of the features' probabilities counts inputs with two features twice.": lambda n, p, k: n * p * k,
        "that is the share of inputs with a feature on; multiply by the number of pieces.": lambda n, p, k: (
            1 - (1 - p) ** k
        ),
        "any of the features is enough; you ask for all of them at once.": lambda n, p, k: n * p**k,
    },
)


def _partners(g0: Tensor, g1: Tensor) -> Tensor:
    overlap = g0.T @ g1
    return torch.from_numpy(linear_sum_assignment(overlap.numpy(), maximize=True)[1])


def _by_argmax(g0: Tensor, g1: Tensor) -> Tensor:
    return (g0.T @ g1).argmax(dim=1)


def _greedy(g0: Tensor, g1: Tensor) -> Tensor:
    """Each piece of layer 0 in turn takes the best partner that is still free."""
    overlap, free, best = g0.T @ g1, set(range(g1.shape[1])), []
    for row in overlap:
        best.append(max(free, key=lambda piece: row[piece].item()))
        free.remove(best[-1])
    return torch.tensor(best)


partners = Check(
    "partners",
    _partners,
    lambda: [
        (torch.eye(2), torch.tensor([[0.9, 0.8], [0.8, 0.1]])),
        (torch.tensor([[0.0, 0.3], [0.1, 0.9], [0.0, 0.4]]), torch.tensor([[0.2, 0.9], [0.9, 1.0], [0.5, 0.2]])),
        *draws(*(2 * [shape] for shape in ((12, 6), (9, 4), (5, 5), (3, 7))), uniform=True),
    ],
    {
        "in your answer two pieces of layer 0 may have the same partner; match them one to one.": _by_argmax,
        "linear_sum_assignment minimises the sum; pass maximize=True.": lambda g0, g1: torch.from_numpy(
            linear_sum_assignment((g0.T @ g1).numpy())[1]
        ),
        "those are the partners of the pieces of layer 1; return those of layer 0.": lambda g0, g1: torch.from_numpy(
            linear_sum_assignment((g1.T @ g0).numpy(), maximize=True)[1]
        ),
        "each piece in turn took its best free partner; `linear_sum_assignment` finds the largest total.": _greedy,
        "those are the rows, which are always in order; the columns are the partners.": lambda g0, g1: torch.arange(
            g0.shape[1]
        ),
        "compare the sums of products; you divided them by lengths or subtracted means.": lambda g0, g1: _partners(
            F.normalize(g0, dim=0), F.normalize(g1, dim=0)
        ),
    },
)


def _importances() -> list[tuple[Tensor]]:
    """Importances at the limits and near them, in double precision, so that 0.9 and 0.1 are exact limits."""
    limits = [[0.9, 0.1, 0.3], [0.0, 0.5, 0.1]]
    near = [[0.89, 0.11, 0.0, 0.09], [0.12, 0.91, 0.0, 0.2], [0.0, 0.05, 0.0, 1.0]]
    square = [[0.95, 0.105], [0.095, 0.88]]
    random = [(0.15 * noise + 0.95 * torch.eye(7, 9) * (noise > 0.2)).double() for (noise,) in draws([(7, 9)])]
    return [*((torch.tensor(g, dtype=torch.float64),) for g in (limits, near, square)), *((g,) for g in random)]


def _misplaced(g: Tensor, high: float = 0.9, low: float = 0.1) -> int:
    diagonal = g.diagonal()
    return int((diagonal < high).sum() + (g > low).sum() - (diagonal > low).sum())


misplaced = Check(
    "misplaced",
    _misplaced,
    _importances,
    {
        "diagonal entries need not be small; count entries above 0.1 off the diagonal only.": lambda g: int(
            (g.diagonal() < 0.9).sum() + (g > 0.1).sum()
        ),
        "a diagonal entry below 0.9 is misplaced too.": lambda g: int((g > 0.1).sum() - (g.diagonal() > 0.1).sum()),
        "entries off the diagonal above 0.1 are misplaced too.": lambda g: int((g.diagonal() < 0.9).sum()),
        "you count the entries that are in the right place.": lambda g: g.numel() - _misplaced(g),
        "exactly 0.9 on the diagonal is enough; count what is below.": lambda g: (
            _misplaced(g) + int((g.diagonal() == 0.9).sum())
        ),
        "exactly 0.1 off the diagonal is small enough; count what is above.": lambda g: (
            _misplaced(g) + int((g == 0.1).sum() - (g.diagonal() == 0.1).sum())
        ),
        "a diagonal entry is misplaced below 0.9, not only below 0.1.": lambda g: _misplaced(g, high=0.1),
        "an entry off the diagonal is misplaced above 0.1, not only above 0.9.": lambda g: _misplaced(g, low=0.9),
        "there may be more columns than features; entries in these must be small, too.": lambda g: _misplaced(
            g[:, : len(g)]
        ),
    },
)
