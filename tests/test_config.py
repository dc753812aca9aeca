"""Every field refuses what it cannot take, in one sentence that names a value that works."""

import ast
import math

import numpy as np
import pytest
import torch

from pd_helpers.core.apd import APDConfig
from pd_helpers.core.spd import SPDConfig
from pd_helpers.core.vpd import VPDConfig
from pd_helpers.runs.presets import PRESETS, preset
from pd_helpers.targets.tms import TMSConfig

pytestmark = pytest.mark.usefixtures("as_a_user")

REFUSED = [
    (APDConfig, "C", 0, ValueError),
    (APDConfig, "C", 2.5, TypeError),
    (APDConfig, "C", "5", TypeError),
    (APDConfig, "C", True, TypeError),
    (APDConfig, "C", None, TypeError),
    (APDConfig, "rank", 0, ValueError),
    (APDConfig, "top_k", 0.0, ValueError),
    (APDConfig, "steps", 0, ValueError),
    (APDConfig, "batch_size", 0, ValueError),
    (APDConfig, "simplicity_coeff", -0.1, ValueError),
    (APDConfig, "simplicity_coeff", math.nan, ValueError),
    (APDConfig, "minimality_coeff", math.inf, ValueError),
    (APDConfig, "schatten_p", 0.0, ValueError),
    (APDConfig, "lr", 0.0, ValueError),
    (APDConfig, "lr", True, TypeError),
    (APDConfig, "schedule", "linear", ValueError),
    (APDConfig, "warmup_fraction", 1.1, ValueError),
    (SPDConfig, "C", -1, ValueError),
    (SPDConfig, "d_gate", 0, ValueError),
    (SPDConfig, "importance_coeff", -1e-9, ValueError),
    (SPDConfig, "importance_coeff", math.nan, ValueError),
    (SPDConfig, "importance_p", "2", TypeError),
    (SPDConfig, "faithfulness_warmup_steps", -1, ValueError),
    (APDConfig, "C", 10**30, ValueError),
    (APDConfig, "steps", 10**30, ValueError),
    (APDConfig, "rank", math.inf, TypeError),
    (APDConfig, "top_k", 77, ValueError),
    (APDConfig, "top_k_start", 77, ValueError),
    (APDConfig, "lr", 1e-320, ValueError),
    (APDConfig, "simplicity_coeff", 1e300, ValueError),
    (APDConfig, "hidden_coeff", 1e-300, ValueError),
    (APDConfig, "init_std", 1e300, ValueError),
    (APDConfig, "init_std", 1e-300, ValueError),
    (APDConfig, "attribution_p", 1e-30, ValueError),
    (SPDConfig, "importance_p", 1e-30, ValueError),
    (TMSConfig, "target_lr", 1e-12, ValueError),
    (TMSConfig, "target_seed", 2**30, ValueError),
    (TMSConfig, "feature_probability", 1e-30, ValueError),
    (TMSConfig, "feature_probability", -0.01, ValueError),
    (TMSConfig, "feature_probability", 1.01, ValueError),
    (TMSConfig, "n_features", 0, ValueError),
    (TMSConfig, "identity", "yes", TypeError),
    (TMSConfig, "target_seed", -1, ValueError),
    (TMSConfig, "target_steps", 0, ValueError),
]


@pytest.mark.parametrize(("kind", "field", "value", "error"), REFUSED)
def test_a_bad_value_is_refused_with_one_that_works(kind, field, value, error):
    with pytest.raises(error) as raised:
        kind(**{field: value})
    message = str(raised.value)
    assert message.startswith(f"{field} must be ")
    assert f"but is {value!r}; " in message
    assert "\n" not in message
    working = ast.literal_eval(message.rsplit("; ", 1)[1].removesuffix(" works"))
    kind(**{field: working})


@pytest.mark.parametrize(
    ("kind", "field", "value", "kept"),
    [
        (APDConfig, "C", 1e3, 1000),
        (APDConfig, "C", np.int64(7), 7),
        (APDConfig, "C", torch.tensor(7), 7),
        (APDConfig, "lr", 1, 1.0),
        (APDConfig, "lr", np.float32(0.5), 0.5),
        (APDConfig, "rank", None, None),
        (APDConfig, "simplicity_coeff", 0, 0.0),
        (TMSConfig, "feature_probability", 0, 0.0),
        (TMSConfig, "feature_probability", 1, 1.0),
    ],
)
def test_numbers_of_other_libraries_and_whole_floats_are_taken(kind, field, value, kept):
    held = getattr(kind(**{field: value}), field)
    assert held == kept
    assert type(held) is type(kept)


@pytest.mark.parametrize("kind", [APDConfig, SPDConfig, TMSConfig])
def test_a_config_survives_its_dict(kind):
    config = kind().replace(**{"C": 7} if kind is not TMSConfig else {"n_features": 7})
    assert kind(**config.to_dict()) == config
    assert config != kind()


@pytest.mark.parametrize(
    ("changes", "nearest"),
    [({"simplicity_coef": 1}, "simplicity_coeff"), ({"topk": 1}, "top_k"), ({"n_feature": 8}, "n_features")],
)
def test_an_unknown_field_is_refused_with_the_nearest(changes, nearest):
    with pytest.raises(ValueError, match=f"unknown field {next(iter(changes))!r}: did you mean '{nearest}'?"):
        preset("apd/tms_5-2").replace(**changes)


def test_an_unknown_field_near_nothing_lists_those_there_are():
    with pytest.raises(ValueError, match="unknown field 'zzz': known fields are .*C, rank"):
        APDConfig().replace(zzz=1)


def test_overrides_reach_target_and_decomposition():
    changed = preset("spd/tms_5-2").replace(n_features=8, n_hidden=3, C=30)
    assert (changed.target.n_features, changed.target.n_hidden, changed.config.C) == (8, 3, 30)
    unchanged = preset("spd/tms_5-2")
    assert changed.target.replace(n_features=5, n_hidden=2) == unchanged.target
    assert changed.config.replace(C=unchanged.config.C) == unchanged.config


def test_an_unknown_experiment_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="unknown experiment 'apd/tms_5_2': did you mean 'apd/tms_5-2'?"):
        preset("apd/tms_5_2")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_their_method_and_document_only_fields_there_are(name):
    p = PRESETS[name]
    assert p.name == name
    assert isinstance(p.config, {"apd": APDConfig, "spd": SPDConfig, "vpd": VPDConfig}[name.split("/")[0]])
    assert set(p.differs) <= {*p.target.to_dict(), *p.config.to_dict()}
    assert p.source
