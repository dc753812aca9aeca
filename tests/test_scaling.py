"""Presets at other sizes: coefficients follow, so that the losses of each feature keep their proportions."""

import warnings

import pytest
import torch
from networks import randomize

import pd_helpers as pdh
from pd_helpers.core import apd, losses
from pd_helpers.core.components import decompose
from pd_helpers.runs.presets import PRESETS, preset
from pd_helpers.runs.scaling import resized
from pd_helpers.targets.base import make_target
from pd_helpers.targets.tms import TMSConfig


def at(name, **overrides):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return resized(preset(name).settings, overrides)


def test_by_hand():
    spd = at("spd/tms_5-2", n_features=20, n_hidden=5).config
    assert (spd.C, spd.importance_coeff) == (80, 7.5e-4)
    apd = at("apd/tms_5-2", n_features=20, n_hidden=5).config
    assert (apd.C, apd.top_k, apd.simplicity_coeff) == (20, 0.844, 1.75)
    assert at("apd/tms_5-2", feature_probability=0.1).config.top_k == 0.422


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_at_its_own_sizes_is_itself(name):
    settings = preset(name).settings
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resized(settings, settings.target.to_dict() | {"lr": 0.5}) == settings.replace(lr=0.5)


def test_a_value_of_ones_own_counts_under_either_name():
    settings = at("spd/tms_5-2", n_features=20, n_hidden=5, C=33, importance_coeff=1e-3)
    assert (settings.config.C, settings.config.importance_coeff) == (33, 1e-3)


def test_a_warning_says_what_follows():
    sentence = (
        r"with n_features=20, n_hidden=5, C is 80 instead of 20 and importance_coeff is 0.00075 instead of 0.003, in "
        "proportion; set them to choose otherwise"
    )
    with pytest.warns(UserWarning, match=sentence):
        resized(preset("spd/tms_5-2").settings, {"target_steps": 3, "n_features": 20, "n_hidden": 5, "lr": 0.01})


@pytest.mark.parametrize(("p", "least", "most"), [(0.0, 1 / 256, 1 / 256), (1e-6, 1 / 256, 1 / 256), (1.0, 4, 4.5)])
def test_top_k_stays_possible_for_any_probability(p, least, most):
    assert least <= at("apd/tms_5-2", feature_probability=p).config.top_k <= most
    assert at("apd/resid_mlp_2", feature_probability=1.0).config.top_k_start == 200


def test_a_target_that_does_not_say_its_extent_leaves_all_as_it_is(monkeypatch):
    monkeypatch.setattr(TMSConfig, "extent", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resized(preset("spd/tms_5-2").settings, {"n_features": 20}).config == preset("spd/tms_5-2").config


def test_a_run_and_its_reproduction_have_the_same_settings(tmp_path):
    quick = {"n_features": 8, "n_hidden": 3, "steps": 4, "target_steps": 3, "n_init": 1, "batch_size": 64}
    with pytest.warns(UserWarning, match="C is 8 instead of 5"):
        run = pdh.run("apd/tms_5-2", **quick, show_progress=False, device="cpu", out=tmp_path / "run")
    loaded = pdh.load(tmp_path / "run")
    assert loaded.config == run.config
    assert run.config.C == 8


def test_more_features_keep_the_proportions_of_all_losses():
    """Four copies of a toy model side by side, each as wrong as the single one: weighted losses are all a quarter."""
    one = make_target(TMSConfig(target_steps=20), 0, show_progress=False).double()
    x = torch.rand(64, 5).double() * (torch.rand(64, 5) < 0.3)
    small = randomize(decompose(one, {"embed": 5}, rank=1), seed=3)
    four = TMSConfig(n_features=20, n_hidden=8).build().double()
    with torch.no_grad():
        four.embed.weight.copy_(torch.block_diag(*[small.target.embed.weight] * 4))
        four.unembed.bias.copy_(small.target.unembed.bias.repeat(4))
    large = decompose(four, {"embed": 20}, rank=1)
    of_small, of_large = small.layers["embed"], large.layers["embed"]
    with torch.no_grad():
        of_large.U.zero_()
        of_large.V.zero_()
        for i in range(4):
            of_large.U[5 * i : 5 * i + 5, 2 * i : 2 * i + 2] = of_small.U
            of_large.V[5 * i : 5 * i + 5, :, 5 * i : 5 * i + 5] = of_small.V
    base, scaled = preset("apd/tms_5-2").config, at("apd/tms_5-2", n_features=20, n_hidden=8).config
    on = (torch.rand(64, 5) < 0.3).double()

    def weighted(model, x, on, config):
        norms, n_parameters = apd.schatten_norms(model, config.schatten_p)
        return torch.stack([
            config.minimality_coeff * losses.recon(model(x, on).output, model.target(x)),
            config.simplicity_coeff * losses.simplicity(on, norms, n_parameters),
        ])  # fmt: skip

    of_one = weighted(small, x, on, base)
    silent = torch.zeros(64, 15).double()  # one copy has inputs, the others none
    of_four = weighted(large, torch.cat([x, silent], dim=1), torch.cat([on, silent], dim=1), scaled)
    torch.testing.assert_close(4 * of_four[1], of_one[1])
    torch.testing.assert_close(4 * of_four[0], of_one[0])
    assert at("spd/tms_5-2", n_features=20).config.importance_coeff == preset("spd/tms_5-2").config.importance_coeff / 4
