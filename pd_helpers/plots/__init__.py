"""Pictures of networks and their decompositions that several topics share; pictures of one topic are in its room.

Colours are from seaborn's colour-blind palette, and whatever a colour says, a number or a line style says as well.
Figures are made without pyplot's global state, so a widget or a test can draw as many as it needs.
"""

from pd_helpers.plots.columns import Arrows, columns, decomposition, matrix, outputs
from pd_helpers.plots.contributions import (
    contribution_pair,
    contribution_scatter,
    contributions_beside,
    neuron_contributions,
)
from pd_helpers.plots.importances import greedy_order, importance_grid, importances, readable_order
from pd_helpers.plots.networks import NO_FUNCTION, gated_network, network, residual_network
from pd_helpers.plots.page import (
    COLORS,
    DPI,
    GREY,
    NEGATIVE,
    POSITIVE,
    VIRIDIS,
    bundle,
    caption,
    color,
    figure,
    png,
    show,
)
from pd_helpers.plots.scrubbing import (
    ABLATED,
    ACTIVE,
    KEPT,
    LOWEST,
    FeatureErrors,
    SharedComponents,
    active_components,
    feature_errors,
    halves,
    highest_error,
    scrub_histograms,
)
from pd_helpers.plots.training import losses

__all__ = [
    "ABLATED", "ACTIVE", "COLORS", "DPI", "GREY", "KEPT", "LOWEST", "NEGATIVE", "NO_FUNCTION", "POSITIVE", "VIRIDIS",
    "Arrows", "FeatureErrors", "SharedComponents", "active_components", "bundle", "caption", "color", "columns",
    "contribution_pair", "contribution_scatter", "contributions_beside", "decomposition", "feature_errors", "figure",
    "gated_network", "greedy_order", "halves", "highest_error", "importance_grid", "importances", "losses", "matrix",
    "network", "neuron_contributions", "outputs", "png", "readable_order", "residual_network", "scrub_histograms",
    "show",
]  # fmt: skip

ROOMS = {
    "apd_gated_functions": ["gated_outputs"],
    "apd_superposition": ["column_sums", "losses_diagram", "sum_of_components", "telling_inputs"],
    "attributions": ["effect_bars", "estimates"],
    "compressed_computation": ["KINDS", "direction_cosines", "mixing_losses"],
    "description_length": ["co_activation", "schatten_bars"],
    "spd_superposition": [
        "against_room", "by_feature", "curves", "deep_network", "leaky_sigmoids", "lengths", "scores", "sorted_lengths",
    ],
    "superposition": ["phases"],
    "training_the_targets": ["responses"],
    "your_own_network": [
        "class_table", "coefficient_curves", "factors_of", "match_curves", "read_vector", "reading", "show_vector",
        "signed_bars",
    ],
}  # fmt: skip
"""Topic → pictures that only its notebook shows; they are in `pd_helpers.course.<topic>.plots`."""


def __getattr__(name: str) -> None:
    for topic, names in ROOMS.items():
        if name in names:
            raise AttributeError(
                f"plots has no {name!r}, which is a picture of one topic: "
                f"from pd_helpers.course.{topic}.plots import {name}"
            )
    raise AttributeError(f"plots has no {name!r}")
