"""The losses of APD and SPD as pure functions; the training loops weigh and add them.

`n_rows` is the number of rows the batch stands for. The loops drop rows on which a loss is known to be zero
(all-zero inputs, see `training`), so a mean must be told what to divide by.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def faithfulness(
    targets: Mapping[str, Float[Tensor, "_ _"]],
    sums: Mapping[str, Float[Tensor, "_ _"]],
    n_parameters: int | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error between the target's parameters and the sum of all components, over all layers.

    `n_parameters` is what to divide by, where matrices stand for larger ones (see `ResidualMLP.narrow`).

    Source: APD section 2.2 and public code, SPD section 2. (APD eqs. 14 and 23 write a plain sum; the published
    coefficients go with the mean.)
    """
    n_parameters = n_parameters or sum(W.numel() for W in targets.values())
    return sum((targets[path] - sums[path]).square().sum() for path in targets) / n_parameters


def reconstruction(
    output: Float[Tensor, "rows d"], target: Float[Tensor, "rows d"], n_rows: int | None = None
) -> Float[Tensor, ""]:
    """Mean squared error against the target network's output.

    With APD's active components this is the minimality loss (eq. 17); with SPD's stochastic masks it is the
    stochastic reconstruction loss.
    """
    n_rows = len(output) if n_rows is None else n_rows
    return F.mse_loss(output, target, reduction="sum") / (n_rows * output.shape[-1])


def divergence(
    output: Float[Tensor, "rows d"], target: Float[Tensor, "rows d"], n_rows: int | None = None
) -> Float[Tensor, ""]:
    """KL(softmax(target) ‖ softmax(output)) in nats, mean over the batch: `reconstruction` for a classifier's logits.

    What SPD's successors compare the outputs of language models by; neither paper needs it.
    """
    n_rows = len(output) if n_rows is None else n_rows
    given, wanted = output.log_softmax(dim=-1), target.log_softmax(dim=-1)
    return F.kl_div(given, wanted, reduction="sum", log_target=True) / n_rows


OUTPUT_LOSSES = {"mse": reconstruction, "kl": divergence}
"""How the output of a masked network is compared with the target's, by the name a configuration gives it."""


def hidden_reconstruction(
    inputs: Mapping[str, Float[Tensor, "rows _"]],
    targets: Mapping[str, Float[Tensor, "rows _"]],
    uses: list[str],
    n_rows: int | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error of the activations that enter these uses, mean over uses (APD section D.2)."""
    return layerwise([reconstruction(inputs[path], targets[path], n_rows) for path in uses])


def schatten(U: Float[Tensor, "C d_out R"], V: Float[Tensor, "C R d_in"], p: float) -> Float[Tensor, " C"]:
    """Σ_r (‖U_cr‖² ‖V_cr‖²)^(p/2), the factorised Schatten norm ‖P_c‖_p^p of each component (APD eqs. 21 and 22).

    An upper bound of Σ_r λ_r^p for p ≤ 1, with equality when the factors are P_c's singular vectors.
    """
    squared = U.square().sum(dim=1) * V.square().sum(dim=2)  # (C, R)
    return (squared + 1e-16).pow(p / 2).sum(dim=-1)


def simplicity(
    active: Bool[Tensor, "rows C"] | Float[Tensor, "rows C"],
    norms: Float[Tensor, " C"],
    n_parameters: int,
    n_rows: int | None = None,
) -> Float[Tensor, ""]:
    """Σ_c s_c(x) Σ_l ‖P_{c,l}‖_p^p, mean over the batch, per parameter (APD eq. 22).

    `norms` holds each component's Schatten norm summed over layers; a tied matrix counts in `norms` and
    `n_parameters` once for each use, as in public code.
    """
    n_rows = len(active) if n_rows is None else n_rows
    return active.sum(dim=0).to(norms.dtype) @ norms / (n_rows * n_parameters)


def powers(A: Float[Tensor, "rows C"], p: float) -> Float[Tensor, "rows C"]:
    """|A|^p, zero at zero and with a finite slope there: the Lp formulation's s_c(x) (APD eq. 26)."""
    return (A.square() + 1e-16).pow(p / 2) - 1e-16 ** (p / 2)


def importance_minimality(
    g: Float[Tensor, "rows C"], p: float, weights: Float[Tensor, " rows"], n_rows: int
) -> Float[Tensor, ""]:
    """Σ_l Σ_c g_c(x)^p, mean over the batch (SPD section 2), with g from the upper-leaky sigmoid.

    `g` holds the subcomponents of all layers; `weights` says how many rows of the batch each row stands for.
    """
    return weights @ (g + 1e-12).pow(p).sum(dim=-1) / n_rows


def layerwise(losses: list[Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The mean over layers, as of SPD's reconstruction losses with one layer masked at a time (section 2)."""
    return torch.stack(losses).mean()
