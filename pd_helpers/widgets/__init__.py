"""Labs: sliders that retrain or replay a decomposition, for JupyterLab, Colab and Binder (core ipywidgets only).

Every lab draws on a Figure of its own, shows it through an image of fixed size so that the page never jumps, and
carries that picture as a static output too, for GitHub and for print. Work that takes long runs as an asyncio task
that gives way to the front end every few steps; a slider that moves again cancels the task instead of queueing.
"""

from pd_helpers.widgets.attributions import (
    AttributionLab,
)
from pd_helpers.widgets.description_length import (
    DescriptionLengthLab,
    SchattenLab,
)
from pd_helpers.widgets.factorization import (
    TermsLab,
)
from pd_helpers.widgets.gated import (
    GatedLab,
)
from pd_helpers.widgets.guess import (
    GuessLab,
)
from pd_helpers.widgets.importance import (
    PriceLab,
)
from pd_helpers.widgets.lab import (
    Lab,
)
from pd_helpers.widgets.layers import (
    LayersLab,
)
from pd_helpers.widgets.lp import (
    LpLab,
)
from pd_helpers.widgets.masks import (
    MaskLab,
    SigmoidLab,
)
from pd_helpers.widgets.mixing import (
    MixingLab,
)
from pd_helpers.widgets.own_network import (
    SubcomponentLab,
)
from pd_helpers.widgets.sharing import (
    AblationLab,
    FeatureLab,
    SharingLab,
)
from pd_helpers.widgets.shrinkage import (
    ShrinkageLab,
)
from pd_helpers.widgets.splitting import (
    RoomLab,
)
from pd_helpers.widgets.superposition import (
    MechanismLab,
    SparsityLab,
)
from pd_helpers.widgets.targets import (
    ResponseLab,
)

__all__ = [
    "AblationLab", "AttributionLab", "DescriptionLengthLab", "FeatureLab", "GatedLab", "GuessLab", "Lab", "LayersLab",
    "LpLab", "MaskLab", "MechanismLab", "MixingLab", "PriceLab", "ResponseLab", "RoomLab", "SchattenLab",
    "SharingLab", "ShrinkageLab", "SigmoidLab", "SparsityLab", "SubcomponentLab", "TermsLab",
]  # fmt: skip
