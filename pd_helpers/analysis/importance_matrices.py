"""Which subcomponents matter for which feature? Importance matrices (SPD figs. 8, 12 and 13).

    matrix[i, c] = g_c(0.75 e_i)

The input 0.75 e_i has only feature i on. Permuting the columns can make a one-to-one pattern visible.
"""

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pd_helpers.analysis.decomposed import Decomposed
from pd_helpers.targets.features import one_hot


@torch.no_grad()
def importance_matrix(run: Decomposed, value: float = 0.75) -> dict[str, Float[Tensor, "n_features _"]]:
    """Use → importances (n_features, C); in row i, feature i alone is on at this value (SPD figs. 8, 12 and 13)."""
    return run.importances(one_hot(run.target.n_features, value).to(run.components.factors[0]))


def greedy_order(matrix: Float[Tensor, "n_features C"]) -> Int[Tensor, " C"]:
    """An order of the columns that makes the diagonal large: each row in turn takes its largest free column."""
    remainder = matrix.clone()
    order = []
    for row in remainder[: matrix.shape[1]]:
        order.append(int(row.argmax()))
        remainder[:, order[-1]] = -torch.inf
    return _completed(order, matrix.shape[1])


def hungarian_order(matrix: Float[Tensor, "n_features C"]) -> Int[Tensor, " C"]:
    """The order of the columns with the largest possible sum on the diagonal, if there are as many columns as rows."""
    rows, columns = linear_sum_assignment(matrix.cpu().numpy(), maximize=True)
    return _completed(columns[rows.argsort()].tolist(), matrix.shape[1])


def _completed(order: list[int], n: int) -> Int[Tensor, " n"]:
    """This order, followed by the columns 0 … n − 1 that it leaves out."""
    return torch.tensor(order + sorted(set(range(n)) - set(order)))
