"""The papers' experiments as data: what is decomposed, with which settings, and what was published.

Settings that are not in a preset's `differs` are the paper's. Where `differs` names one, it says what the paper
used and why ours is another; the losses, their coefficients and C are always the paper's.
"""

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from pd_helpers.apd import APDConfig
from pd_helpers.config import replace
from pd_helpers.gated import GatedConfig
from pd_helpers.residual_mlp import ResidualMLPConfig
from pd_helpers.spd import SPDConfig
from pd_helpers.targets import TargetConfig, TMSConfig


@dataclass(frozen=True)
class Preset:
    """One experiment of the papers."""

    name: str
    """method/target."""
    source: str
    """Where the papers describe it."""
    target: TargetConfig
    """The network and its training."""
    config: APDConfig | SPDConfig
    """The decomposition."""
    published: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    """Metric → published mean and standard deviation, None where only read off a plot; empty where none were."""
    differs: dict[str, str] = field(default_factory=dict)
    """Field → what the paper used, and why we do not."""

    def replace(self, **changes: Any) -> "Preset":
        """A copy with some fields of target or config changed; an unknown one raises ValueError with the nearest."""
        target, config = replace([self.target, self.config], changes)
        return Preset(self.name, self.source, target, config, self.published, self.differs)


APD_TMS_5_2 = TMSConfig()
SPD_TMS_5_2 = TMSConfig(target_steps=10_000)
TMS_40_10 = TMSConfig(n_features=40, n_hidden=10, target_steps=5000)
"""As the APD paper says would do as well; it trained 2,000 steps with batches of 2,048."""

RESID_MLP_1 = ResidualMLPConfig()
RESID_MLP_2 = ResidualMLPConfig(n_layers=2, d_mlp=25)
RESID_MLP_3 = ResidualMLPConfig(n_layers=3, d_mlp=17, n_features=102)

APD_TMS_5_2_CONFIG = APDConfig(
    steps=2000, batch_size=256, lr=0.06, schedule="cosine", faithfulness_warmup_steps=200, starts=3
)
APD_TMS_5_2_LP_CONFIG = APDConfig(
    attribution_p=0.9,
    minimality_coeff=7.0,
    simplicity_coeff=1.0,
    unit_norm=True,
    lr=0.3,
    warmup_fraction=0.1,
    steps=2000,
)
APD_TMS_40_10_CONFIG = APDConfig(
    C=50,
    top_k=1.0,
    attribute_at="target",
    minimality_coeff=10.0,
    simplicity_coeff=20.0,
    schatten_p=0.9,
    lr=0.01,
    schedule="cosine",
    warmup_fraction=0.3,
    steps=8000,
    batch_size=128,
    init_std=0.01,
    starts=3,
    start_steps=8000,
)
SPD_TMS_5_2_CONFIG = SPDConfig(
    lr=0.02, steps=1600, batch_size=1024, faithfulness_warmup_steps=200, starts=3, start_steps=500
)
SPD_TMS_5_2_ID_CONFIG = SPD_TMS_5_2_CONFIG.replace(steps=2000, start_steps=900)
SPD_TMS_40_10_CONFIG = SPDConfig(
    C=200,
    importance_coeff=1e-4,
    importance_p=2.0,
    lr=0.03,
    steps=5000,
    batch_size=256,
    faithfulness_warmup_steps=200,
    starts=3,
    start_steps=1500,
)
APD_RESID_MLP_1_CONFIG = APDConfig(
    C=130,
    rank=50,
    top_k=1.28,
    attribute_at="target",
    minimality_coeff=1.0,
    simplicity_coeff=10.0,
    hidden_coeff=1.0,
    schatten_p=0.9,
    unit_norm=True,
    lr=0.002,
    schedule="cosine",
    warmup_fraction=0.05,
    steps=4000,
    batch_size=256,
    init_std=0.01,
)
APD_RESID_MLP_1_RANK4_CONFIG = APD_RESID_MLP_1_CONFIG.replace(
    rank=4, lr=0.01, warmup_fraction=0.01, steps=3000, init_std=None
)
APD_RESID_MLP_2_CONFIG = APD_RESID_MLP_1_CONFIG.replace(
    C=200, rank=25, minimality_coeff=2.0, simplicity_coeff=7.0, unit_norm=False, top_k_start=4.0
)
APD_RESID_MLP_2_RANK1_CONFIG = APD_RESID_MLP_2_CONFIG.replace(rank=1, lr=0.01, warmup_fraction=0.01, init_std=None)
APD_GATED_CONFIG = APDConfig(
    C=4,
    top_k=0.2217,
    attribute_at="target",
    faithfulness_coeff=0.1,
    minimality_coeff=5.0,
    simplicity_coeff=5.0,
    schatten_p=1.0,
    lr=0.01,
    schedule="cosine",
    warmup_fraction=0.004,
    steps=12_000,
    batch_size=1000,
    init_std=0.1,
    faithfulness_warmup_steps=400,
    top_k_start=0.8,
)
SPD_RESID_MLP_1_CONFIG = SPDConfig(
    C=100,
    importance_coeff=1e-5,
    importance_p=2.0,
    lr=0.03,
    steps=10_000,
    batch_size=512,
    faithfulness_warmup_steps=200,
)
SPD_RESID_MLP_2_CONFIG = SPD_RESID_MLP_1_CONFIG.replace(C=400, lr=0.005, steps=20_000, warmup_fraction=0.05)
SPD_RESID_MLP_3_CONFIG = SPD_RESID_MLP_2_CONFIG.replace(C=500, steps=12_000)

APD_FIGURE_8 = {  # means, read off the plot
    "topk_mse": (1.2e-4, None),
    "scrubbed_mse": (2.65e-4, None),
    "monosemantic_mse": (8.5e-4, None),
    "anti_scrubbed_mse": (1.35e-3, None),
}
APD_FIGURE_25 = {
    "topk_mse": (9.1e-5, None),
    "scrubbed_mse": (4.0e-4, None),
    "monosemantic_mse": (8.3e-4, None),
    "anti_scrubbed_mse": (1.55e-3, None),
}

APD_5_2_DIFFERS = {
    "steps": "20,000; at this learning rate and batch size the scores no longer move after 2,000",
    "batch_size": "2,048; the noise of a small batch helps components out of sharing a column",
    "lr": "0.03; twice that gets there sooner",
    "schedule": "constant; ending at zero brings faithfulness from 1e-4 to 1e-6",
    "faithfulness_warmup_steps": "none; from a faithful start fewer runs end with a column shared",
    "starts": "one; one initialisation in ten ends with a column shared, see notebook 07",
}
APD_40_10_DIFFERS = {
    "steps": "20,000; at this learning rate 8,000 give the same scores",
    "batch_size": "2,048; the noise of a small batch helps components out of sharing a feature",
    "lr": "0.001; ten times that gets there sooner, and with the small batch further",
    "warmup_fraction": "0.05; a long warm-up gives features time to find a component of their own",
    "init_std": "about 0.05 in public code; every component starts from next to nothing",
    "starts": "one; half of them end with a feature that shares a component or has none, see notebook 07",
    "start_steps": "one start; what went wrong is only seen at the end, so all three are trained to the end",
    "target_steps": "2,000 with batches of 2,048; the paper expects 5,000 with 1,024 to do as well",
}
SPD_5_2_DIFFERS = {
    "steps": "40,000 (10,000 in later public configs); at this learning rate 1,600 give the same scores",
    "batch_size": "4,096; 1,024 are enough",
    "lr": "0.001; twenty times that gets there sooner",
    "faithfulness_warmup_steps": "none; 200 in later public configs, and far more reliable",
    "starts": "one; one initialisation in five ends with subcomponents doing two features' work",
}
SPD_5_2_ID_DIFFERS = SPD_5_2_DIFFERS | {
    "steps": "40,000 (10,000 in later public configs); at this learning rate 2,000 give the same scores",
}
SPD_40_10_DIFFERS = {
    "steps": "40,000; at this learning rate 5,000 give the same scores",
    "batch_size": "4,096; 256 are enough at this learning rate",
    "lr": "0.001; thirty times that gets there sooner, and takes apart what at 0.004 stayed doubled in some seeds",
    "faithfulness_warmup_steps": "none; 200 in later public configs, and far more reliable",
    "starts": "one; now and then one ends with two features that share two subcomponents between them",
    "start_steps": "one start; by then the loss tells",
    "target_steps": "10,000 with batches of 8,192; a longer training changes the target little",
}

APD_SMALL_BATCH = {"batch_size": "2,048; 256 in section C.2 and public code"}
APD_FULL_RANK = {
    "lr": "0.001; twice that gets there sooner",
    "warmup_fraction": "0.01; what all ranks of all components add up to in the first steps is easily too much",
}
APD_RESID_MLP_1_DIFFERS = {
    **APD_SMALL_BATCH,
    **APD_FULL_RANK,
    "steps": "40,000 (10,000 in public code); at this learning rate 4,000 give the same picture",
}
APD_RESID_MLP_1_RANK4_DIFFERS = {
    **APD_SMALL_BATCH,
    "rank": "50; each mechanism needs only one or two, and a step takes a third of the time",
    "steps": "40,000 (10,000 in public code); at this learning rate 3,000 give the same picture",
    "lr": "0.001; ten times that gets there sooner, and fewer features share a component",
}
APD_RESID_MLP_2_RANK1_DIFFERS = {
    **APD_SMALL_BATCH,
    "steps": "10,000; at this learning rate 4,000 give the same picture",
    "lr": "0.001; ten times that gets there sooner",
    "top_k_start": "none; with room for more components at first, fewer features come to share one",
}
APD_RESID_MLP_2_DIFFERS = APD_RESID_MLP_2_RANK1_DIFFERS | APD_FULL_RANK
APD_GATED_DIFFERS = {
    "lr": "0.003; gets as far in fewer steps",
    "steps": "200,000; what a CPU does in a minute",
    "batch_size": "10,000; 81% of the inputs have no bit on and teach nothing",
    "faithfulness_warmup_steps": "none; a neuron without nearly all of its weights is silent, and learns nothing",
    "top_k_start": "none; as long as all components are active, no neuron is silent",
}
SPD_RESID_MLP_1_DIFFERS = {
    "steps": "30,000; at this learning rate 10,000 give the same matrices",
    "batch_size": "2,048; 512 are enough",
    "lr": "0.002; fifteen times that gets there sooner",
    "schedule": "constant; ending at zero settles which subcomponents are important",
    "faithfulness_warmup_steps": "none; 200 in later public configs, and more reliable",
}
SPD_RESID_MLP_2_DIFFERS = SPD_RESID_MLP_1_DIFFERS | {
    "steps": "50,000; what a CPU does in half an hour",
    "lr": "0.001; five times that gets further in fewer steps, ten times lets more features share a subcomponent and "
    "diverges with one seed in three",
    "warmup_fraction": "none; with it, high learning rates do not diverge at once",
}
SPD_RESID_MLP_3_DIFFERS = SPD_RESID_MLP_2_DIFFERS | {
    "steps": "200,000, converged at 70,000; what a CPU does in 40 minutes",
    "d_gate": "128; 16, as in one and two layers, so that a CPU can do it",
    "importance_coeff": "0.5e-5; at twice that features come apart sooner",
    "lr": "0.001; five times that gets further in fewer steps, ten times diverged after 5,500",
}

PRESETS = {
    preset.name: preset
    for preset in [
        Preset(
            name="apd/tms_5-2",
            source="APD section 3.1 and D.1.1",
            target=APD_TMS_5_2,
            config=APD_TMS_5_2_CONFIG,
            published={"mmcs": (0.998, 0.000), "ml2r": (0.893, 0.004)},
            differs=APD_5_2_DIFFERS,
        ),
        Preset(
            name="apd/tms_5-2_id",
            source="the target of SPD section 3.2, where APD is said to fail; settings of apd/tms_5-2",
            target=SPD_TMS_5_2.replace(identity=True),
            config=APD_TMS_5_2_CONFIG,
            differs=APD_5_2_DIFFERS,
        ),
        Preset(
            name="apd/tms_5-2_lp",
            source="APD appendix A.2.3, settings of public code",
            target=APD_TMS_5_2,
            config=APD_TMS_5_2_LP_CONFIG,
            differs={"steps": "20,000; a tenth, as for top-k"},
        ),
        Preset(
            name="apd/tms_40-10",
            source="APD section 3.1 and D.1.2",
            target=TMS_40_10,
            config=APD_TMS_40_10_CONFIG,
            published={"mmcs": (0.996, 0.003), "ml2r": (0.935, 0.001)},
            differs=APD_40_10_DIFFERS,
        ),
        Preset(
            name="apd/tms_40-10_id",
            source="the target of SPD section 3.2, where APD is said to fail; settings of apd/tms_40-10",
            target=TMS_40_10.replace(identity=True),
            config=APD_TMS_40_10_CONFIG,
            differs=APD_40_10_DIFFERS,
        ),
        Preset(
            name="spd/tms_5-2",
            source="SPD section 3.1",
            target=SPD_TMS_5_2,
            config=SPD_TMS_5_2_CONFIG,
            published={"mmcs": (1.000, 0.000), "ml2r": (0.993, 0.002)},
            differs=SPD_5_2_DIFFERS,
        ),
        Preset(
            name="spd/tms_5-2_id",
            source="SPD section 3.2",
            target=SPD_TMS_5_2.replace(identity=True),
            config=SPD_TMS_5_2_ID_CONFIG,
            published={"mmcs": (1.000, 0.000), "ml2r": (0.992, 0.010)},
            differs=SPD_5_2_ID_DIFFERS,
        ),
        Preset(
            name="spd/tms_40-10",
            source="SPD section 3.1",
            target=TMS_40_10,
            config=SPD_TMS_40_10_CONFIG,
            published={"mmcs": (1.000, 0.000), "ml2r": (1.010, 0.007)},
            differs=SPD_40_10_DIFFERS,
        ),
        Preset(
            name="spd/tms_40-10_id",
            source="SPD section 3.2",
            target=TMS_40_10.replace(identity=True),
            config=SPD_TMS_40_10_CONFIG,
            published={"mmcs": (1.000, 0.000), "ml2r": (1.031, 0.001)},
            differs=SPD_40_10_DIFFERS,
        ),
        Preset(
            name="apd/resid_mlp_1",
            source="APD section 3.2 and D.2",
            target=RESID_MLP_1,
            config=APD_RESID_MLP_1_CONFIG,
            published=APD_FIGURE_8,
            differs=APD_RESID_MLP_1_DIFFERS,
        ),
        Preset(
            name="apd/resid_mlp_1_rank4",
            source="APD section 3.2 and D.2, with components of rank 4 for slow machines",
            target=RESID_MLP_1,
            config=APD_RESID_MLP_1_RANK4_CONFIG,
            differs=APD_RESID_MLP_1_RANK4_DIFFERS,
        ),
        Preset(
            name="apd/resid_mlp_2",
            source="APD section 3.3 and D.2",
            target=RESID_MLP_2,
            config=APD_RESID_MLP_2_CONFIG,
            published=APD_FIGURE_25,
            differs=APD_RESID_MLP_2_DIFFERS,
        ),
        Preset(
            name="apd/resid_mlp_2_rank1",
            source="APD section C.4",
            target=RESID_MLP_2,
            config=APD_RESID_MLP_2_RANK1_CONFIG,
            differs=APD_RESID_MLP_2_RANK1_DIFFERS,
        ),
        Preset(
            name="apd/gated",
            source="APD section B.1 and D.3",
            target=GatedConfig(),
            config=APD_GATED_CONFIG,
            differs=APD_GATED_DIFFERS,
        ),
        Preset(
            name="spd/resid_mlp_1",
            source="SPD section 3.3",
            target=RESID_MLP_1,
            config=SPD_RESID_MLP_1_CONFIG,
            published={"contribution_r": (1.000, None)},
            differs=SPD_RESID_MLP_1_DIFFERS,
        ),
        Preset(
            name="spd/resid_mlp_2",
            source="SPD section 3.4",
            target=RESID_MLP_2,
            config=SPD_RESID_MLP_2_CONFIG,
            published={"contribution_r": (0.999, None)},
            differs=SPD_RESID_MLP_2_DIFFERS,
        ),
        Preset(
            name="spd/resid_mlp_3",
            source="SPD section 3.4",
            target=RESID_MLP_3,
            config=SPD_RESID_MLP_3_CONFIG,
            published={"contribution_r": (0.999, None)},
            differs=SPD_RESID_MLP_3_DIFFERS,
        ),
    ]
}


def preset(name: str) -> Preset:
    """The preset of that name; an unknown one raises ValueError with the nearest."""
    if name not in PRESETS:
        near = get_close_matches(str(name), PRESETS, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(PRESETS)}"
        raise ValueError(f"unknown experiment {name!r}: {hint}")
    return PRESETS[name]
