"""Which component serves which function of the hand-written network, and how well (APD figs. 12 and 13)?

mechanisms      the weights of each function: the decomposition that one hopes for
serving         cosine similarity of each function's mechanism with each component
purity          share of a component's squared weights that serve each function
alone           what the network computes with one component only
sparse_errors   how well the active components together compute each function
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from pd_helpers.analysis.decomposed import Decomposed, gated_network
from pd_helpers.analysis.importance_matrices import hungarian_order
from pd_helpers.targets.gated_functions import X_MAX, GatedNetwork


@torch.no_grad()
def mechanisms(net: GatedNetwork) -> dict[str, Float[Tensor, "n_functions d_out d_in"]]:
    """Layer → the weights of each function, with all others set to zero: the decomposition that one hopes for."""
    functions = torch.arange(len(net.coefficients), device=net.W_E.device).view(-1, 1, 1)
    return {
        path: torch.where(owner == functions, net.get_submodule(path).weight, 0.0)
        for path, owner in net.owners().items()
    }


@torch.no_grad()
def serving(run: Decomposed) -> Float[Tensor, "n_functions C"]:
    """Cosine similarity of each function's mechanism with each component (APD fig. 13).

    The mechanism of a function is the vector of all weights in which the weights of other functions' neurons are set
    to zero. A perfect decomposition has one 1 in each row and each column.
    """
    Z, layers = mechanisms(gated_network(run)), run.components.layers
    ours = torch.cat([Z[path].flatten(1) for path in layers], dim=1)
    theirs = torch.cat([layer.P.flatten(1) for layer in layers.values()], dim=1)
    return F.cosine_similarity(ours.unsqueeze(1), theirs, dim=2)


@torch.no_grad()
def purity(run: Decomposed) -> Float[Tensor, "C n_functions"]:
    """Share of each component's squared weights that serve each function in the target (colours of APD fig. 13)."""
    net = gated_network(run)
    functions, sums, totals = torch.arange(len(net.coefficients)).view(-1, 1, 1, 1), 0.0, 0.0
    for path, owner in net.owners().items():
        squares = run.components.layers[path].P.square()  # (C, d_out, d_in)
        sums = sums + torch.where(owner == functions.to(owner), squares, 0.0).sum(dim=(2, 3))  # (n_functions, C)
        totals = totals + squares.sum(dim=(1, 2))  # (C,)
    return (sums / totals).T


class Alone(NamedTuple):
    """What the network computes with one component only."""

    x: Float[Tensor, " points"]
    """Equally spaced inputs from 0 to 5."""
    target: Float[Tensor, "n_functions points"]
    """The target's output when one control bit is on."""
    outputs: Float[Tensor, "n_functions C points"]
    """The output when one control bit is on and only one component is active."""

    @property
    def errors(self) -> Float[Tensor, "n_functions C"]:
        """Mean squared error over x, divided by the function's mean square: 0 is perfect, 1 means an output of zero."""
        squared_errors = (self.outputs - self.target.unsqueeze(1)).square().mean(dim=2)
        return squared_errors / self.target.square().mean(dim=1, keepdim=True)

    @property
    def served_by(self) -> Int[Tensor, " n_functions"]:
        """A different component for each function, chosen so that the sum of errors is smallest."""
        return hungarian_order(-self.errors.clamp(max=1.0))[: len(self.target)]


@torch.no_grad()
def alone(run: Decomposed, n_points: int = 200) -> Alone:
    """What each component alone computes for each hand-written function, beside the target's output (APD fig. 12)."""
    net = gated_network(run)
    n, C = len(net.coefficients), next(iter(run.components.layers.values())).C
    x = torch.linspace(0, X_MAX, n_points)
    bits = torch.eye(n).repeat_interleave(n_points, dim=0)
    inputs = torch.cat([x.repeat(n).unsqueeze(1), bits], dim=1).to(run.components.factors[0])
    outputs = [run.components(inputs, mask.expand(len(inputs), C)).output for mask in torch.eye(C).to(inputs)]
    return Alone(x, net(inputs).view(n, n_points), torch.stack(outputs).view(C, n, n_points).transpose(0, 1))


@torch.no_grad()
def sparse_errors(run: Decomposed, n_inputs: int, generator: Generator) -> Float[Tensor, " n_functions"]:
    """Relative error of each function with only the active components, which is what APD trains for (APD fig. 12).

    Components are chosen on `n_inputs` inputs of the training distribution, of which only those with exactly one bit on
    are then used: the mean squared error against the target on them, divided by the target's mean square. 0 is perfect,
    and 1 is an output of zero; a function whose bit is never on alone has NaN. Raises TypeError for another target.
    """
    net = gated_network(run)
    x = run.data(n_inputs, generator).to(net.W_E)
    importances, alone = run.importances(x), x[:, 1:].sum(dim=1) == 1
    x, masks = x[alone], {use: g[alone] for use, g in importances.items()}
    function, target = x[:, 1:].argmax(dim=1), net(x)
    squares = torch.cat([(run.components(x, masks).output - target).square(), target.square()], dim=1)
    error, size = torch.zeros(len(net.coefficients), 2).to(x).index_add_(0, function, squares).unbind(dim=1)
    return error / size


SERVED = 0.1
"""A component is said to serve a function if its relative error, alone, is at most this."""
