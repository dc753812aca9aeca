"""What are the subcomponents of a matrix that all features share, such as a residual MLP's W_out?

co_activation       when one matters, how often does another?
axis_alignment      does a direction follow one axis (one neuron), or many?
mixing_matrix       what the residual stream adds to every feature from all others: W_Eᵀ W_E, diagonal zero
subspace_overlap    do two sets of directions span the same space?
errors_without      the error as more and more of some subcomponents are switched off
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pd_helpers import metrics
from pd_helpers.experiments import Decomposed


def co_activation(g: Float[Tensor, "rows C"], threshold: float = metrics.ALIVE) -> Float[Tensor, "C C"]:
    """Entry (i, j): of the rows on which i is important, the share on which j is too; NaN where i never is."""
    on = (g > threshold).to(g.dtype)
    return on.T @ on / on.sum(dim=0)[:, None]


def axis_alignment(directions: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """The largest |cosine| of each direction with an axis: 1 for a single neuron, 1/√d for all alike."""
    return directions.abs().amax(dim=1) / directions.norm(dim=1)


def mixing_matrix(W_E: Float[Tensor, "d_resid n"]) -> Float[Tensor, "n n"]:
    """W_Eᵀ W_E without its diagonal: what a linear skip connection adds to each feature from the others."""
    M = W_E.T @ W_E
    return M - M.diag().diag()


def subspace_overlap(A: Float[Tensor, "d n_a"], B: Float[Tensor, "d n_b"]) -> float:
    """‖Q_Aᵀ Q_B‖² over the smaller number of columns, with orthonormal bases Q of both; 1 if one space holds the other.

    It is the mean squared cosine of the principal angles. Random spaces of n_a and n_b dimensions in d have
    max(n_a, n_b) / d on average.
    """
    Q_A, Q_B = (torch.linalg.qr(X).Q for X in (A, B))
    return (Q_A.T @ Q_B).square().sum().item() / min(Q_A.shape[1], Q_B.shape[1])


@torch.no_grad()
def errors_without(
    run: Decomposed,
    x: Float[Tensor, "rows d_in"],
    order: Mapping[str, Int[Tensor, "rows n"]],
    counts: Sequence[int],
) -> list[float]:
    """Mean squared error against the target's output with the first k subcomponents of `order` off, for each k.

    `order` names uses; each row lists subcomponents, first to be switched off first. All others stay on.
    """
    wanted, errors = run.target(x), []
    for k in counts:
        masks = {
            use: torch.ones(len(x), run.components.layers[run.components.uses[use].layer].C).scatter_(
                1, ranking[:, :k], 0.0
            )
            for use, ranking in order.items()
        }
        errors.append((run.components(x, masks).output - wanted).square().mean().item())
    return errors
