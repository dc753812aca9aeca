"""Labs: sliders that retrain or replay a decomposition, for JupyterLab, Colab and Binder (core ipywidgets only).

Each lab stands with its topic in `pd_helpers.course`; this module only hands them out, as `pdh.widgets.ShrinkageLab`.
"""

from pd_helpers.course.adversary.lab import AttackLab
from pd_helpers.course.apd_against_spd.lab import GuessLab
from pd_helpers.course.apd_compressed_computation.lab import FeatureLab
from pd_helpers.course.apd_gated_functions.lab import GatedLab
from pd_helpers.course.apd_lp.lab import LpLab
from pd_helpers.course.apd_superposition.lab import ShrinkageLab
from pd_helpers.course.attention.lab import AttentionLab
from pd_helpers.course.attributions.lab import AttributionLab
from pd_helpers.course.compressed_computation.lab import MixingLab
from pd_helpers.course.description_length.lab import DescriptionLengthLab, SchattenLab
from pd_helpers.course.kit.lab import Lab
from pd_helpers.course.kit.residual_labs import AblationLab, SharingLab
from pd_helpers.course.matrix_decomposition.lab import TermsLab
from pd_helpers.course.spd_compressed_computation.lab import ImportanceCoefficientLab
from pd_helpers.course.spd_cross_layer.lab import LayersLab
from pd_helpers.course.spd_from_scratch.lab import MaskLab, SigmoidLab
from pd_helpers.course.spd_superposition.lab import RoomLab
from pd_helpers.course.start_here.lab import MechanismLab
from pd_helpers.course.superposition.lab import SparsityLab
from pd_helpers.course.training_the_targets.lab import ResponseLab
from pd_helpers.course.your_own_network.lab import SubcomponentLab

PriceLab = ImportanceCoefficientLab
"""A second name of the same lab."""

__all__ = [
    "AblationLab", "AttackLab", "AttentionLab", "AttributionLab", "DescriptionLengthLab", "FeatureLab", "GatedLab",
    "GuessLab", "ImportanceCoefficientLab", "Lab", "LayersLab", "LpLab", "MaskLab", "MechanismLab", "MixingLab",
    "PriceLab", "ResponseLab", "RoomLab", "SchattenLab", "SharingLab", "ShrinkageLab", "SigmoidLab", "SparsityLab",
    "SubcomponentLab", "TermsLab",
]  # fmt: skip
