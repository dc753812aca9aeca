"""Pictures of networks and their decompositions: Axes in, Axes out; whole figures come with their alt text.

Colours are seaborn's colour-blind palette, and everything told by colour is also told by a number or a line style.
Figures are made without pyplot's global state, so a widget or a test can draw as many as it likes.
"""

from pd_helpers.plots.attributions import (
    effect_bars,
    estimates,
)
from pd_helpers.plots.description_length import (
    co_activation,
    schatten_bars,
)
from pd_helpers.plots.gated import (
    NO_FUNCTION,
    gated_network,
    gated_outputs,
)
from pd_helpers.plots.method import losses_diagram, sum_of_components, telling_inputs
from pd_helpers.plots.mixing import KINDS, direction_cosines, mixing_losses
from pd_helpers.plots.own_network import (
    class_table,
    factors_of,
    match_curves,
    price_curves,
    read_vector,
    reading,
    show_vector,
    signed_bars,
)
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
from pd_helpers.plots.residual import (
    neuron_contributions,
    residual_network,
    responses,
)
from pd_helpers.plots.sharing import (
    ABLATED,
    ACTIVE,
    KEPT,
    LOWEST,
    FeatureErrors,
    SharedComponents,
    active_components,
    contribution_pair,
    feature_errors,
    halves,
    highest_error,
    scrub_histograms,
)
from pd_helpers.plots.splitting import (
    against_room,
)
from pd_helpers.plots.subcomponents import (
    contribution_scatter,
    contributions_beside,
    importance_grid,
    readable_order,
)
from pd_helpers.plots.tms import (
    Arrows,
    by_feature,
    column_sums,
    columns,
    decomposition,
    deep_network,
    lengths,
    matrix,
    network,
    outputs,
    phases,
    sorted_lengths,
)
from pd_helpers.plots.training import (
    curves,
    greedy_order,
    importances,
    leaky_sigmoids,
    losses,
    scores,
)

__all__ = [
    "ABLATED", "ACTIVE", "COLORS", "DPI", "GREY", "KEPT", "KINDS", "LOWEST", "NEGATIVE", "NO_FUNCTION", "POSITIVE",
    "VIRIDIS", "Arrows", "FeatureErrors", "SharedComponents", "active_components", "against_room", "bundle",
    "by_feature", "caption", "class_table", "co_activation", "color", "column_sums", "columns", "contribution_pair",
    "contribution_scatter", "contributions_beside", "curves", "decomposition", "deep_network", "direction_cosines",
    "effect_bars", "estimates", "factors_of", "feature_errors", "figure", "gated_network", "gated_outputs",
    "greedy_order", "halves", "highest_error", "importance_grid", "importances", "leaky_sigmoids", "lengths", "losses",
    "losses_diagram", "match_curves", "matrix", "mixing_losses", "network", "neuron_contributions", "outputs", "phases",
    "png", "price_curves", "read_vector", "readable_order", "reading", "residual_network", "responses", "schatten_bars",
    "scores", "scrub_histograms", "show", "show_vector", "signed_bars", "sorted_lengths", "sum_of_components",
    "telling_inputs",
]  # fmt: skip
