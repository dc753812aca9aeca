"""Questions put to a finished decomposition.

    from pd_helpers import analysis

    analysis.contributions(run)

The functions that notebooks use most often can be imported from here.
"""

from pd_helpers.analysis.gated_functions import SERVED, Alone, alone, mechanisms, purity, serving, sparse_errors
from pd_helpers.analysis.importance_matrices import greedy_order, hungarian_order, importance_matrix
from pd_helpers.analysis.neuron_contributions import (
    Contributions,
    contributions,
    doubled,
    feature_attributions,
    feature_components,
)
from pd_helpers.analysis.scrubbing import Scrubbed, SingleFeature, ablate_halves, scrub, single_feature

__all__ = [
    "SERVED", "Alone", "Contributions", "Scrubbed", "SingleFeature", "ablate_halves", "alone", "contributions",
    "doubled", "feature_attributions", "feature_components", "greedy_order", "hungarian_order", "importance_matrix",
    "mechanisms", "purity", "scrub", "serving", "single_feature", "sparse_errors",
]  # fmt: skip
