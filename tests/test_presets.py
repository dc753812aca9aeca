"""A preset is the paper's experiment, and beside it what we change and why."""

import dataclasses
import re

import pytest

import pd_helpers as pdh

TMS = {
    "feature_probability": 0.05,
    "target_lr": 5e-3,
    "target_schedule": "constant",
    "target_weight_decay": 0.01,
    "n_init": 1,
}
TMS_5_2 = {**TMS, "n_features": 5, "n_hidden": 2}
TMS_40_10 = {**TMS, "n_features": 40, "n_hidden": 10}
APD_TARGETS = {
    5: {"target_steps": 5000, "target_batch_size": 1024},
    40: {"target_steps": 2000, "target_batch_size": 2048},
}
SPD_TARGETS = {
    5: {"target_steps": 10_000, "target_batch_size": 1024},
    40: {"target_steps": 10_000, "target_batch_size": 8192},
}
PLAIN, IDENTITY = {"identity": False}, {"identity": True}
APD_5_2 = {
    **TMS_5_2,
    "C": 5,
    "rank": None,
    "top_k": 0.211,
    "top_k_start": None,
    "attribute_at": "components",
    "schatten_p": 1.0,
    "faithfulness_coeff": 1.0,
    "minimality_coeff": 1.0,
    "simplicity_coeff": 0.7,
    "lr": 0.03,
    "schedule": "constant",
    "warmup_fraction": 0.05,
    "steps": 20_000,
    "batch_size": 2048,
    "faithfulness_warmup_steps": 0,
}
APD_40_10 = {
    **TMS_40_10,
    "C": 50,
    "rank": None,
    "top_k": 1.0,
    "top_k_start": None,
    "attribute_at": "target",
    "schatten_p": 0.9,
    "faithfulness_coeff": 1.0,
    "minimality_coeff": 10.0,
    "simplicity_coeff": 20.0,
    "lr": 0.001,
    "schedule": "cosine",
    "warmup_fraction": 0.05,
    "steps": 20_000,
    "batch_size": 2048,
    "faithfulness_warmup_steps": 0,
}
SPD = {"d_gate": 16, "recon_coeff": 1.0, "recon_layerwise_coeff": 1.0, "faithfulness_warmup_steps": 0}
SPD_TMS = {**SPD, "lr": 1e-3, "schedule": "cosine", "steps": 40_000, "batch_size": 4096}
SPD_5_2 = {**TMS_5_2, **SPD_TMS, "C": 20, "importance_coeff": 3e-3, "importance_p": 1.0}
SPD_40_10 = {**TMS_40_10, **SPD_TMS, "C": 200, "importance_coeff": 1e-4, "importance_p": 2.0}

RESIDUAL = {  # the papers do not say for how many steps these targets were trained
    "n_features": 100,
    "d_resid": 1000,
    "feature_probability": 0.01,
    "target_lr": 3e-3,
    "target_schedule": "cosine",
    "target_weight_decay": 0.01,
    "target_batch_size": 2048,
    "n_init": 1,
}
ONE, TWO = {"n_layers": 1, "d_mlp": 50}, {"n_layers": 2, "d_mlp": 25}
THREE = {"n_layers": 3, "d_mlp": 17, "n_features": 102}
APD_RESIDUAL = {
    "top_k": 1.28,
    "top_k_start": None,
    "attribute_at": "target",
    "hidden_coeff": 1.0,
    "faithfulness_coeff": 1.0,
    "schatten_p": 0.9,
    "lr": 1e-3,
    "schedule": "cosine",
    "warmup_fraction": 0.01,
    "batch_size": 2048,
    "faithfulness_warmup_steps": 0,
}
APD_ONE = {"C": 130, "minimality_coeff": 1.0, "simplicity_coeff": 10.0, "unit_norm": True, "steps": 40_000, "rank": 50}
APD_TWO = {"C": 200, "minimality_coeff": 2.0, "simplicity_coeff": 7.0, "unit_norm": False, "steps": 10_000}
SPD_RESIDUAL = {**SPD, "importance_p": 2.0, "schedule": "constant", "warmup_fraction": 0.0, "batch_size": 2048}

VPD = {
    "d_gate": 50,
    "importance_network": "layer",
    "sigmoid": "straight_through",
    "importance_penalty": "power",
    "importance_p": 2.0,
    "importance_p_end": 0.4,
    "frequency_a": 32_768,
    "faithfulness_coeff": 1.0,
    "adversary": "per input",
    "adversary_lr": 0.01,
    "adversary_beta1": 0.01,
    "adversary_beta2": 0.99,
    "lr": 1e-3,
    "schedule": "cosine",
    "steps": 20_000,
    "batch_size": 4096,
    "n_init": 1,
}
VPD_5_2 = {**TMS_5_2, **VPD, "C": 20, "importance_coeff": 8e-4, "frequency_coeff": 4e-4}
VPD_PINGPONG = {  # ours: there are no published ones
    **VPD,
    "C": 160,
    "importance_coeff": 8e-4,
    "importance_p": 1.0,
    "frequency_coeff": 0.02,
    "frequency_a": 16,
    "lr": 0.01,
    "steps": 2000,
    "batch_size": 1024,
}
VPD_40_10 = {**TMS_40_10, **VPD, "C": 100, "importance_coeff": 6e-5, "frequency_coeff": 3e-5}
VPD_RESIDUAL = {
    **VPD,
    "d_gate": 128,
    "importance_coeff": 1e-5,
    "importance_p_end": 2.0,
    "frequency_coeff": 0.0,
    "faithfulness_coeff": 0.0,
    "schedule": "constant",
    "steps": 50_000,
    "batch_size": 2048,
}

INDUCTION = {
    "vocabulary": 128,
    "length": 64,
    "d_model": 16,
    "n_heads": 1,
    "n_layers": 2,
    "target_steps": 100_000,
    "target_batch_size": 1024,
    "target_lr": 1e-3,
}
PAPER = {  # APD sections A.2.3, B.1, C.4 and D.1 to D.3; SPD's table of settings
    "apd/tms_5-2": {**APD_5_2, **PLAIN, **APD_TARGETS[5]},
    "apd/tms_5-2_id": {**APD_5_2, **IDENTITY, **SPD_TARGETS[5]},
    "apd/tms_5-2_lp": {
        **APD_5_2,
        **PLAIN,
        **APD_TARGETS[5],
        "attribution_p": 0.9,
        "attribute_at": "target",
        "minimality_coeff": 7.0,
        "simplicity_coeff": 1.0,
        "unit_norm": True,
        "lr": 0.3,
        "warmup_fraction": 0.1,
    },
    "apd/tms_40-10": {**APD_40_10, **PLAIN, **APD_TARGETS[40]},
    "apd/tms_40-10_id": {**APD_40_10, **IDENTITY, **SPD_TARGETS[40]},
    "spd/tms_5-2": {**SPD_5_2, **PLAIN, **SPD_TARGETS[5]},
    "spd/tms_5-2_id": {**SPD_5_2, **IDENTITY, **SPD_TARGETS[5]},
    "spd/tms_40-10": {**SPD_40_10, **PLAIN, **SPD_TARGETS[40]},
    "spd/tms_40-10_id": {**SPD_40_10, **IDENTITY, **SPD_TARGETS[40]},
    "apd/resid_mlp_1": {**RESIDUAL, **ONE, **APD_RESIDUAL, **APD_ONE},
    "apd/resid_mlp_1_rank4": {**RESIDUAL, **ONE, **APD_RESIDUAL, **APD_ONE},
    "apd/resid_mlp_2": {**RESIDUAL, **TWO, **APD_RESIDUAL, **APD_TWO, "rank": 25},
    "apd/resid_mlp_2_rank1": {**RESIDUAL, **TWO, **APD_RESIDUAL, **APD_TWO, "rank": 1},
    "apd/gated": {
        "n_functions": 4,
        "n_neurons": 10,
        "n_layers": 2,
        "feature_probability": 0.05,
        "C": 4,
        "rank": None,
        "top_k": 0.2217,
        "top_k_start": None,
        "attribute_at": "target",
        "faithfulness_coeff": 0.1,
        "minimality_coeff": 5.0,
        "simplicity_coeff": 5.0,
        "schatten_p": 1.0,
        "lr": 3e-3,
        "schedule": "cosine",
        "warmup_fraction": 0.004,
        "steps": 200_000,
        "batch_size": 10_000,
        "faithfulness_warmup_steps": 0,
        "n_init": 1,
    },
    "spd/resid_mlp_1": {
        **RESIDUAL, **ONE, **SPD_RESIDUAL,
        "C": 100, "importance_coeff": 1e-5, "lr": 2e-3, "steps": 30_000,
    },
    "spd/resid_mlp_2": {
        **RESIDUAL, **TWO, **SPD_RESIDUAL,
        "C": 400, "importance_coeff": 1e-5, "lr": 1e-3, "steps": 50_000,
    },
    "spd/resid_mlp_3": {
        **RESIDUAL,
        **THREE,
        **SPD_RESIDUAL,
        "d_gate": 128,
        "C": 500,
        "importance_coeff": 0.5e-5,
        "lr": 1e-3,
        "steps": 200_000,
    },
    "vpd/tms_5-2": {**VPD_5_2, **PLAIN, **SPD_TARGETS[5]},
    "vpd/tms_5-2_id": {**VPD_5_2, **IDENTITY, **SPD_TARGETS[5]},
    "vpd/tms_40-10": {**VPD_40_10, **PLAIN, **SPD_TARGETS[40]},
    "vpd/resid_mlp_1": {**RESIDUAL, **ONE, **VPD_RESIDUAL, "C": 100},
    "vpd/pingpong": {**VPD_PINGPONG, "n_groups": 4, "n_circuits": 4},
    "spd/induction": INDUCTION,
    "vpd/induction": INDUCTION,
}  # fmt: skip


@pytest.mark.parametrize("name", pdh.PRESETS)
def test_the_papers_settings_are_the_papers(name):
    target, config = pdh.preset(name).paper_settings
    settings = target.to_dict() | config.to_dict()
    assert {key: settings[key] for key in PAPER[name]} == PAPER[name]


@pytest.mark.parametrize("name", pdh.PRESETS)
def test_ours_are_the_papers_but_for_what_is_declared(name):
    preset = pdh.preset(name)
    paper, ours = (target.to_dict() | config.to_dict() for target, config in (preset.paper_settings, preset.settings))
    assert {key for key in ours if ours[key] != paper[key]} == set(preset.ours)
    assert {key: ours[key] for key in preset.ours} == {key: value for key, (value, _) in preset.ours.items()}
    assert (preset.target, preset.config) == preset.settings


@pytest.mark.parametrize("name", pdh.PRESETS)
def test_every_difference_has_the_papers_value_and_a_reason(name):
    preset = pdh.preset(name)
    fields = {f.name for config in preset.settings for f in dataclasses.fields(config)}
    assert set(preset.differs) <= fields
    for field, sentence in preset.differs.items():
        value, reason = sentence.split("; ", 1)
        assert len(reason) > 10, field
        paper = (preset.paper_target.to_dict() | preset.paper.to_dict())[field]
        assert value == "none" if paper is None else str(paper) == value.replace(",", ""), field
    other = {"rank"} if name.endswith("_rank4") else set()  # an extra for slow machines
    other |= {"C"} if name == "vpd/tms_40-10" else set()  # as for SPD on the same network
    assert {"C", "top_k", "rank"} & set(preset.differs) == other


OUR_COEFFICIENTS = {
    "spd/resid_mlp_3": {"importance_coeff"},
    "vpd/tms_5-2": {"adversarial_coeff", "stochastic_coeff"},
    "vpd/tms_5-2_id": {"adversarial_coeff", "stochastic_coeff"},
    "vpd/resid_mlp_1": {"faithfulness_coeff"},
}


def test_no_other_coefficient_differs():
    for name, preset in pdh.PRESETS.items():
        coefficients = {field for field in preset.ours if re.search("_coeff$|_p$", field)}
        assert coefficients == OUR_COEFFICIENTS.get(name, set()), name


def test_the_papers_settings_can_be_run():
    paper = pdh.prepare("apd/tms_5-2", paper=True, target_steps=5, show_progress=False, device="cpu")
    assert paper.config == pdh.preset("apd/tms_5-2").paper
    assert len(paper.candidates) == 1
    ours = pdh.prepare("apd/tms_5-2", target_steps=5, show_progress=False, device="cpu")
    assert ours.config == pdh.preset("apd/tms_5-2").config


@pytest.mark.parametrize("name", pdh.PRESETS)
def test_published_scores_are_given(name):
    metrics = {"mmcs", "ml2r"}
    unknown = ("gated", "_id", "_lp", "_rank1", "_rank4")  # no numbers in the papers
    if name.startswith("vpd/") or name == "spd/induction" or (name.startswith("apd/") and name.endswith(unknown)):
        metrics = set()
    elif name.startswith("apd/resid"):
        metrics = {"topk_mse", "scrubbed_mse", "monosemantic_mse", "anti_scrubbed_mse"}
    elif name.startswith("spd/resid"):
        metrics = {"contribution_r"}
    assert set(pdh.preset(name).published) == metrics


def test_an_unknown_experiment_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'spd/tms_5-2'"):
        pdh.preset("spd/tms5-2")
