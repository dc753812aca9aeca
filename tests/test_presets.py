"""A preset is the paper's experiment, except where it says so."""

import dataclasses

import pytest

import pd_helpers as pdh

PAPER = {  # APD sections D.1.1 and D.1.2; SPD's table of settings
    "apd/tms_5-2": {
        "n_features": 5,
        "n_hidden": 2,
        "identity": False,
        "target_steps": 5000,
        "target_batch_size": 1024,
        "C": 5,
        "rank": None,
        "top_k": 0.211,
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
    },
    "apd/tms_40-10": {
        "n_features": 40,
        "n_hidden": 10,
        "identity": False,
        "target_steps": 2000,
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
    },
    "spd/tms_5-2": {
        "n_features": 5,
        "n_hidden": 2,
        "identity": False,
        "target_steps": 10_000,
        "target_batch_size": 1024,
        "C": 20,
        "d_gate": 16,
        "importance_coeff": 3e-3,
        "importance_p": 1.0,
        "recon_coeff": 1.0,
        "recon_layerwise_coeff": 1.0,
        "lr": 1e-3,
        "schedule": "cosine",
        "steps": 40_000,
        "batch_size": 4096,
    },
    "spd/tms_40-10": {
        "n_features": 40,
        "n_hidden": 10,
        "identity": False,
        "target_steps": 10_000,
        "C": 200,
        "d_gate": 16,
        "importance_coeff": 1e-4,
        "importance_p": 2.0,
        "recon_coeff": 1.0,
        "recon_layerwise_coeff": 1.0,
        "lr": 1e-3,
        "schedule": "cosine",
        "steps": 40_000,
        "batch_size": 4096,
    },
}
PAPER |= {f"{name}_id": {**PAPER[name], "identity": True} for name in ("spd/tms_5-2", "spd/tms_40-10")}
PAPER["apd/tms_5-2_id"] = {**PAPER["apd/tms_5-2"], "identity": True, "target_steps": 10_000}  # on SPD's target
PAPER["apd/tms_5-2_lp"] = PAPER["apd/tms_5-2"] | {
    "attribution_p": 0.9,
    "minimality_coeff": 7.0,
    "simplicity_coeff": 1.0,
    "unit_norm": True,
    "lr": 0.3,
    "warmup_fraction": 0.1,
}
PAPER["apd/tms_40-10_id"] = {**PAPER["apd/tms_40-10"], "identity": True}
COMMON = {"feature_probability": 0.05, "target_lr": 5e-3, "target_schedule": "constant", "target_weight_decay": 0.01}
PAPER = {name: {**COMMON, **settings} for name, settings in PAPER.items()}

RESIDUAL = {  # APD section D.2, SPD's table of settings; the papers do not say for how many steps targets were trained
    "n_features": 100,
    "d_resid": 1000,
    "feature_probability": 0.01,
    "target_lr": 3e-3,
    "target_schedule": "cosine",
    "target_weight_decay": 0.01,
    "target_batch_size": 2048,
}
ONE, TWO = {"n_layers": 1, "d_mlp": 50}, {"n_layers": 2, "d_mlp": 25}
THREE = {"n_layers": 3, "d_mlp": 17, "n_features": 102}
APD_RESIDUAL = {
    "top_k": 1.28,
    "attribute_at": "target",
    "hidden_coeff": 1.0,
    "faithfulness_coeff": 1.0,
    "schatten_p": 0.9,
    "lr": 1e-3,
    "schedule": "cosine",
    "warmup_fraction": 0.01,
    "batch_size": 2048,
    "top_k_start": None,
}
APD_ONE = {"C": 130, "minimality_coeff": 1.0, "simplicity_coeff": 10.0, "unit_norm": True, "steps": 40_000}
APD_TWO = {"C": 200, "minimality_coeff": 2.0, "simplicity_coeff": 7.0, "unit_norm": False, "steps": 10_000}
SPD_RESIDUAL = {
    "importance_p": 2.0,
    "recon_coeff": 1.0,
    "recon_layerwise_coeff": 1.0,
    "schedule": "constant",
    "warmup_fraction": 0.0,
    "batch_size": 2048,
    "d_gate": 16,
}
PAPER |= {
    "apd/resid_mlp_1": {**RESIDUAL, **ONE, **APD_RESIDUAL, **APD_ONE, "rank": 50},
    "apd/resid_mlp_1_rank4": {**RESIDUAL, **ONE, **APD_RESIDUAL, **APD_ONE, "rank": 50},
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
        "top_k_start": None,
    },
    "spd/resid_mlp_1": {
        **RESIDUAL,
        **ONE,
        **SPD_RESIDUAL,
        "C": 100,
        "importance_coeff": 1e-5,
        "lr": 2e-3,
        "steps": 30_000,
    },
    "spd/resid_mlp_2": {
        **RESIDUAL,
        **TWO,
        **SPD_RESIDUAL,
        "C": 400,
        "importance_coeff": 1e-5,
        "lr": 1e-3,
        "steps": 50_000,
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
}


@pytest.mark.parametrize("name", pdh.PRESETS)
def test_settings_are_the_papers_unless_declared(name):
    preset = pdh.preset(name)
    settings = {**preset.target.to_dict(), **preset.config.to_dict()}
    for key, value in PAPER[name].items():
        assert (settings[key] != value) == (key in preset.differs), key


@pytest.mark.parametrize("name", pdh.PRESETS)
def test_what_is_declared_to_differ_is_a_field_with_a_reason(name):
    preset = pdh.preset(name)
    fields = {f.name for config in (preset.target, preset.config) for f in dataclasses.fields(config)}
    assert set(preset.differs) <= fields
    assert all(len(reason) > 10 for reason in preset.differs.values())
    smaller = {"rank"} if name.endswith("_rank4") else set()  # an extra for slow machines
    assert {"C", "top_k", "rank"} & set(preset.differs) == smaller


@pytest.mark.parametrize("name", pdh.PRESETS)
def test_published_scores_are_given(name):
    wanted = {"mmcs", "ml2r"}
    if name.startswith("apd/") and name.endswith(
        ("gated", "_id", "_lp", "_rank1", "_rank4")
    ):  # no numbers in the papers
        wanted = set()
    elif name.startswith("apd/resid"):
        wanted = {"topk_mse", "scrubbed_mse", "monosemantic_mse", "anti_scrubbed_mse"}
    elif name.startswith("spd/resid"):
        wanted = {"contribution_r"}
    assert set(pdh.preset(name).published) == wanted


def test_an_unknown_experiment_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'spd/tms_5-2'"):
        pdh.preset("spd/tms5-2")
