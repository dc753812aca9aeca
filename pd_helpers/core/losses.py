"""The losses of APD (section 2 and appendices), SPD (section 2) and VPD as pure functions; training loops weight them.

Means over the batch divide by `n_inputs`, the number of inputs of the batch, by default the number of rows. The two
differ where all-zero inputs have been merged into one row (see `shortcuts.empty_rows`).
"""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def faithfulness(
    targets: Mapping[str, Float[Tensor, "_ _"]],
    sums: Mapping[str, Float[Tensor, "_ _"]],
    n_uses: Mapping[str, int] | None = None,
    n_parameters: Mapping[str, int] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error between the target's parameters and the sum of all components, over all layers.

    A tied matrix counts once for each of its `n_uses`, by default one, as in public code. `n_parameters` says how many
    parameters a matrix stands for, where that is a larger one (see `ResidualMLP.narrow`).

    Source: APD section 2.2 and public code, SPD section 2. (APD eqs. 14 and 23 write a plain sum; the published
    coefficients go with the mean.)
    """
    n_uses = n_uses or dict.fromkeys(targets, 1)
    n_parameters = n_parameters or {path: W.numel() for path, W in targets.items()}
    total = sum(n_uses[path] * (targets[path] - sums[path]).square().sum() for path in targets)
    return total / sum(n_uses[path] * n_parameters[path] for path in targets)


def recon(
    output: Float[Tensor, "rows ..."], target: Float[Tensor, "rows ..."], n_inputs: int | None = None
) -> Float[Tensor, ""]:
    """Mean squared error against the target network's output, over inputs and all numbers of an input's output.

    With APD's active components this is the minimality loss (eq. 17); with SPD's stochastic masks it is the
    stochastic reconstruction loss.
    """
    n_inputs = len(output) if n_inputs is None else n_inputs
    return F.mse_loss(output, target, reduction="sum") / (n_inputs * math.prod(output.shape[1:]))


def kl_divergence(
    output: Float[Tensor, "rows *positions classes"],
    target: Float[Tensor, "rows *positions classes"],
    n_inputs: int | None = None,
) -> Float[Tensor, ""]:
    """KL(softmax(target) ‖ softmax(output)) in nats, mean over the batch: `recon` for a classifier's logits.

    Where an input has logits at several positions, the mean is over these too. Successors of SPD use it to compare the
    outputs of language models; neither paper needs it. Raises ValueError for logits of fewer than two classes.
    """
    if output.ndim < 2 or output.shape[-1] < 2:
        raise ValueError(
            f"output_loss is 'kl', which compares the probabilities of two classes or more, but the network's output "
            f"has shape {tuple(output.shape)}; 'mse' works"
        )
    n_inputs = len(output) if n_inputs is None else n_inputs
    log_q, log_p = output.log_softmax(dim=-1), target.log_softmax(dim=-1)
    return F.kl_div(log_q, log_p, reduction="sum", log_target=True) / (n_inputs * math.prod(output.shape[1:-1]))


OUTPUT_LOSSES = {"mse": recon, "kl": kl_divergence}
"""Name in a configuration → the loss that compares the output of a masked network with the target's."""


def output_loss(which: str | Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, int], Tensor]:
    """The loss (output, target_output, n_inputs) → scalar that a configuration names, or gives as a function.

    Such a function of one's own takes output and target_output, and gives a mean over the batch.
    """
    if isinstance(which, str):
        return OUTPUT_LOSSES[which]
    return lambda output, target, n_inputs=None: which(output, target)


def hidden_recon(
    inputs: Mapping[str, Float[Tensor, "rows ..."]],
    targets: Mapping[str, Float[Tensor, "rows ..."]],
    uses: list[str],
    n_inputs: int | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error of the activations that enter these uses, averaged over uses (APD section D.2)."""
    return layerwise([recon(inputs[path], targets[path], n_inputs) for path in uses])


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
    n_inputs: int | None = None,
) -> Float[Tensor, ""]:
    """Σ_c s_c(x) Σ_l ‖P_{c,l}‖_p^p, mean over the batch, per parameter (APD eq. 22).

    `norms` holds each component's Schatten norm summed over layers; a tied matrix counts in `norms` and
    `n_parameters` once for each use, as in public code.
    """
    n_inputs = len(active) if n_inputs is None else n_inputs
    return active.sum(dim=0).to(norms.dtype) @ norms / (n_inputs * n_parameters)


def powers(A: Float[Tensor, "rows C"], p: float) -> Float[Tensor, "rows C"]:
    """|A|^p, which is zero at zero and has a finite slope there: s_c(x) of the Lp formulation (APD eq. 26)."""
    return (A.square() + 1e-16).pow(p / 2) - 1e-16 ** (p / 2)


def importance_minimality(
    g: Float[Tensor, "*rows C"], p: float, weights: Float[Tensor, " inputs"], n_inputs: int
) -> Float[Tensor, ""]:
    """Σ_l Σ_c g_c(x)^p, mean over the batch (SPD section 2), with g from the upper-leaky sigmoid.

    `g` holds the subcomponents of all layers whose rows have this shape; the mean is over positions too. `weights` says
    how many inputs of the batch each row stands for, where the rows are the inputs.
    """
    of_rows = (g + 1e-12).pow(p).sum(dim=-1)  # (*rows)
    return weights.to(of_rows) @ of_rows / n_inputs if of_rows.shape == weights.shape else of_rows.mean()


def smooth_l0(g: Float[Tensor, "*rows C"], gamma: float) -> Float[Tensor, "*rows C"]:
    """g² / (g² + γ²), which for a small γ is 0 at 0 and 1 elsewhere: a smooth count of what matters (after VPD)."""
    squared = g.square()
    return squared / (squared + gamma**2)


def frequency_minimality(f: Float[Tensor, " C"], a: float) -> Float[Tensor, ""]:
    """Σ_c f_c log2(1 + a f_c), f_c being how often a subcomponent is important: a little more than proportional to it.

    A subcomponent that serves two purposes therefore costs more than two that serve one each. Source: VPD, with the
    fixed `a` of later public code; the paper writes the number of rows of a batch in its place.
    """
    return (f * torch.log2(1 + a * f)).sum()


def layerwise(losses: list[Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The mean over layers, for example of SPD's reconstruction losses with one layer masked at a time (section 2)."""
    return torch.stack(losses).mean()
