"""What a network may tell the methods about itself, by inheriting from `KnownNetwork`.

The methods work with any `nn.Module` and ask nothing of it. A network of the papers knows more: its attributions have
a closed form, its matrices stand for larger ones, only some of its activations are hidden ones. It says so by naming
this class as a base. A module that merely has methods of the same names is never asked.
"""

from collections.abc import Mapping

from jaxtyping import Bool, Float
from torch import Tensor, nn


class KnownNetwork(nn.Module):
    """A network that knows its own closed forms. Each method has a default that says "nothing special"."""

    def closed_form_attributions(
        self,
        x: Float[Tensor, "rows d_in"],
        factors: Mapping[str, tuple[Float[Tensor, "C d_out R"], Float[Tensor, "C R d_in"]]],
        weights: Mapping[str, Float[Tensor, "d_out d_in"]],
    ) -> Float[Tensor, "rows C"] | None:
        """APD's attributions (eq. 8) of components U, V at these weights; None where there is no closed form.

        `factors` maps each decomposed layer to U and V, `weights` each of these layers to its weight matrix.
        """
        return None

    def silent_rows(self, x: Float[Tensor, "rows d_in"]) -> Bool[Tensor, " rows"] | None:
        """Rows on which the network and every part of it give what they give on a row of zeros; None if not known.

        More exactly: rows whose output is that of a row of zeros, for the network's own weights and for weights of
        zero, and whose derivatives with respect to all weights are zero.
        """
        return None

    def parameter_count(self, layer: str) -> int:
        """Number of parameters that means over parameters count for this layer's matrix."""
        return self.get_submodule(layer).weight.numel()

    @property
    def hidden_layers(self) -> list[str] | None:
        """Layers that read activations inside the network, for APD's hidden reconstruction; None means all layers."""
        return None
