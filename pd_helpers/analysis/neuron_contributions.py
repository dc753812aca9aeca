"""What does each neuron do for each feature, and which component does it?

contributions          does a component do the same as the target, neuron by neuron?   APD figs. 6, 10; SPD figs. 6, 7
feature_attributions   how strongly does each feature use each component?
feature_components     which component serves which feature?
doubled                which components serve two features?                           APD sections 3.2, C.2 and C.4
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pd_helpers.analysis.decomposed import Decomposed, attributions, residual_mlp
from pd_helpers.targets.features import one_hot
from pd_helpers.targets.residual_mlp import ResidualMLP


class Contributions(NamedTuple):
    """How much each neuron contributes to each feature."""

    target: Float[Tensor, "n_features n_neurons"]
    """(W_U[i, :] W_out) ⊙ (W_in W_E[:, i]) for feature i, with the neurons of all layers side by side."""
    components: Float[Tensor, "n_features n_neurons"]
    """The same for the predominant component of each feature."""
    chosen: Int[Tensor, "n_features n_layers"]
    """The predominant component of each feature in each layer; in APD it is the same in all layers."""

    @property
    def r(self) -> float:
        """Correlation of `target` and `components` over all features and neurons."""
        return torch.corrcoef(torch.stack([self.target.flatten(), self.components.flatten()]))[0, 1].item()


@torch.no_grad()
def contributions(run: Decomposed) -> Contributions:
    """Neuron contributions of the target and of the predominant component of each feature (APD figs. 6 and 10).

    A component that spans layers, as in APD, contributes (W_U[i, :] P_out,c) ⊙ (P_in,c W_E[:, i]); the component with
    the largest contributions over the neurons of all layers is predominant. In SPD each subcomponent of W_in is
    combined with the whole of W_out, and each layer has a predominant one (SPD fig. 6).
    """
    net, joint, parts = residual_mlp(run), run.method.spans_layers, []
    targets = [_contribution(net, mlp.W_in.weight, mlp.W_out.weight) for mlp in net.mlps]
    for i, mlp in enumerate(net.mlps):
        P_in = run.components.layers[f"mlps.{i}.W_in"].P
        P_out = run.components.layers[f"mlps.{i}.W_out"].P if joint else mlp.W_out.weight
        parts.append(_contribution(net, P_in, P_out))  # (C, n_features, d_mlp)
    sizes = torch.stack([part.square().sum(dim=2) for part in parts])  # (n_layers, C, n_features)
    if joint:
        sizes = sizes.sum(dim=0, keepdim=True).expand_as(sizes)
    chosen = sizes.argmax(dim=1)  # (n_layers, n_features)
    features = torch.arange(chosen.shape[1], device=chosen.device)
    best = [part[c, features] for part, c in zip(parts, chosen, strict=True)]
    return Contributions(torch.cat(targets, dim=1), torch.cat(best, dim=1), chosen.T)


@torch.no_grad()
def feature_attributions(run: Decomposed, value: float = 1.0) -> Float[Tensor, "n_features C"]:
    """Attributions of all components; in row i, feature i alone is on at this value."""
    return attributions(run, one_hot(residual_mlp(run).n_features, value))


def feature_components(run: Decomposed, value: float = 1.0) -> Int[Tensor, " n_features"]:
    """The component with the largest attribution when only this feature is on, at this value (APD section 3.2)."""
    return feature_attributions(run, value).argmax(dim=1)


def doubled(owner: Int[Tensor, " n_features"]) -> dict[int, list[int]]:
    """Component → its features, for components that serve two or more (APD sections 3.2, C.2 and C.4).

    `owner` is the component that serves each feature, see `feature_components`.
    """
    components, counts = owner.unique(return_counts=True)
    return {c: (owner == c).nonzero().flatten().tolist() for c in components[counts > 1].tolist()}


def _contribution(net: ResidualMLP, W_in: Tensor, W_out: Tensor) -> Float[Tensor, "*C n_features d_mlp"]:
    return (net.W_U @ W_out) * (W_in @ net.W_E).mT
