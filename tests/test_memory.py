"""Sizes against memory: what cannot fit is refused with a size that does, and nothing that fits is refused."""

import re

import pytest
import torch
from torch import nn

import pd_helpers as pdh
from pd_helpers.core.machine import memory

pytestmark = pytest.mark.usefixtures("as_a_user")


@pytest.fixture
def megabytes(monkeypatch):
    """Sets how much memory there seems to be."""
    return lambda n: monkeypatch.setattr(memory, "free_memory", lambda device: round(1e6 * n))


def prepare(name="spd/tms_5-2", **settings):
    given = {"target_steps": 1, "target_batch_size": 8, "batch_size": 16, "warm_up": False, "show_progress": False}
    return pdh.prepare(name, **given | settings)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("spd/tms_5-2", "C"),
        ("spd/tms_5-2", "batch_size"),
        ("spd/tms_5-2", "d_gate"),
        ("apd/tms_5-2_id", "n_hidden"),
        ("apd/resid_mlp_1", "d_resid"),
        ("spd/resid_mlp_2", "n_layers"),
        ("apd/gated", "n_neurons"),
    ],
)
def test_the_size_that_is_named_fits(name, field, megabytes):
    megabytes(200)
    fixed = {} if "gated" in name or "resid" in name else {"n_features": 5}
    batch = {} if field == "batch_size" else {"batch_size": 16}
    quick = {} if "gated" in name else {"target_steps": 1, "target_batch_size": 8}
    with pytest.raises(ValueError, match=f"^{field} must fit into memory, of which 200 MB are free, but ") as refused:
        pdh.prepare(name, warm_up=False, show_progress=False, **fixed, **batch, **quick, **{field: 10**9})
    smaller = int(re.search(rf"; {field}=(\d+) works$", str(refused.value))[1])
    run = pdh.prepare(name, warm_up=False, show_progress=False, **fixed, **batch, **quick, **{field: smaller})
    assert run.step == 0


def test_it_is_a_lower_bound(megabytes):
    """Parameters, gradients and two moments of Adam, counted in the run itself, are never less than what is asked."""
    run = prepare(C=300, d_gate=40, n_init=1)
    trained = sum(p.numel() for p in run.method.parameters().values())
    least = 4 * 4 * trained
    megabytes(1.01 * least / 1e6 + 0.1)
    prepare(C=300, d_gate=40, n_init=1)
    megabytes(0.3 * least / 1e6)
    with pytest.raises(ValueError, match="must fit into memory"):
        prepare(C=300, d_gate=40, n_init=1)


@pytest.mark.parametrize("name", pdh.PRESETS)
def test_every_experiment_fits_into_what_a_notebook_may_take(name, megabytes):
    from pd_helpers.runs.memory import check_settings

    megabytes(1500)
    experiment = pdh.preset(name)
    check_settings(experiment, experiment.settings, torch.device("cpu"))
    check_settings(experiment, experiment.paper_settings, torch.device("cpu"))


def test_layers_of_a_network_count_with_their_own_numbers(megabytes):
    network = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 20))

    def fit(layers):
        config = pdh.SPDConfig(steps=1, batch_size=8)
        return pdh.fit(network, config, lambda n, g: torch.rand(n, 30, generator=g), layers, show_progress=False)

    least = 4 * 4 * 1000 * (40 + 20 + 3 * 16)  # 1000 subcomponents of the second layer
    megabytes(0.9 * least / 1e6)
    with pytest.raises(ValueError, match="C must fit into memory"):
        fit({"2": 1000})
    fit({"2": 100})


def test_a_network_that_is_too_large_for_any_size(megabytes):
    network = nn.Sequential(nn.Linear(300, 400))
    config = pdh.SPDConfig(C=2, steps=1, batch_size=2)
    megabytes(0.001)
    with pytest.raises(
        ValueError, match="target must fit into memory, of which 0 MB are free, but takes at least 0 MB"
    ):
        pdh.fit(network, config, lambda n, g: torch.rand(n, 300, generator=g), ["0"], show_progress=False)


def test_a_target_by_itself(megabytes):
    megabytes(1)
    with pytest.raises(ValueError, match="n_hidden must fit into memory"):
        pdh.make_target(pdh.TMSConfig(n_hidden=100_000))
    assert pdh.make_target(pdh.TMSConfig(target_steps=1), show_progress=False).n_features == 5


def test_several_sizes_that_are_too_large_are_all_named(megabytes):
    megabytes(100)
    config = pdh.TMSConfig(n_features=10**10, target_batch_size=10**10)
    with pytest.raises(ValueError, match=r"^n_features and target_batch_size must fit .* GB; n_features=\d+, target_b"):
        pdh.make_target(config)


def test_the_rank_of_a_preset_may_stand_where_matrices_are_smaller():
    small = {"n_features": 8, "d_mlp": 4, "d_resid": 9}
    assert prepare("apd/resid_mlp_1", **small).config.rank == pdh.preset("apd/resid_mlp_1").config.rank
    with pytest.raises(ValueError, match=r"rank must be at most min\(d_out, d_in\) \+ 1 = 5 .* but is 40; 5 works"):
        prepare("apd/resid_mlp_1", **small, rank=40)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"feature_probability": 0}, "no feature is ever on"),
        ({"steps": 100, "warmup_fraction": 0.001}, "warmup_fraction is 0.001, less than one of 100 steps"),
        (
            {
                "faithfulness_coeff": 0,
                "recon_coeff": 0,
                "recon_layerwise_coeff": 0,
                "importance_coeff": 0,
            },
            "are all 0, so nothing will be trained",
        ),
    ],
)
def test_what_is_allowed_and_pointless_is_said(settings, message):
    with pytest.warns(UserWarning, match=message):
        prepare(**settings)


def test_usual_settings_are_no_reason_to_warn(recwarn):
    prepare()
    prepare("apd/tms_5-2", steps=10)
    assert [str(warning.message) for warning in recwarn if warning.category is UserWarning] == []


def test_components_of_one_s_own_network(megabytes):
    with pytest.raises(ValueError, match=r"C must fit into memory, .* but is 1000000000000, which takes at least"):
        pdh.decompose(nn.Linear(3, 2), {"": 10**12})


class TestLayersOfOtherKinds:
    """Of tokens, positions and patches there are fewer numbers than the width of the matrix says."""

    BATCH = 4000

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(20_000, 4), nn.Linear(4, 3)

        def forward(self, tokens):
            return self.head(self.embed(tokens))

    @staticmethod
    def convolution():
        return nn.Sequential(nn.Conv2d(2, 3, 31, padding=15), nn.Flatten(), nn.Linear(12, 5))

    def fit(self, network, data, layers, **settings):
        config = pdh.SPDConfig(**{"C": 2, "d_gate": 1, "steps": 1, "batch_size": self.BATCH} | settings)
        return pdh.fit(network, config, data, layers, show_progress=False)

    @pytest.mark.parametrize("name", ["tokens", "patches"])
    def test_what_fits_is_not_refused(self, name, megabytes):
        """Rows as wide as the matrix would take 320 MB, and 31 MB."""
        cases = {
            "tokens": (self.Tokens(), lambda n, g: torch.randint(20_000, (n,), generator=g), ["embed"]),
            "patches": (self.convolution(), lambda n, g: torch.rand(n, 2, 2, 2, generator=g), ["0"]),
        }
        megabytes({"tokens": 5, "patches": 2}[name])
        assert self.fit(*cases[name]).step == 1

    @pytest.mark.parametrize("name", ["tokens", "patches"])
    def test_what_does_not_fit_is_refused_with_a_size_that_does(self, name, megabytes):
        network, data, layers = {
            "tokens": (self.Tokens(), lambda n, g: torch.randint(20_000, (n,), generator=g), ["embed"]),
            "patches": (self.convolution(), lambda n, g: torch.rand(n, 2, 2, 2, generator=g), ["0"]),
        }[name]
        megabytes(10)
        with pytest.raises(ValueError, match=r"^C must fit into memory, of which 10 MB are free, but ") as refused:
            self.fit(network, data, {layers[0]: 10**9}, batch_size=8)
        smaller = int(re.search(r"C=(\d+) works$", str(refused.value))[1])
        assert self.fit(network, data, {layers[0]: smaller}, batch_size=8).step == 1

    def test_mixed_precision_needs_as_much_at_least(self, megabytes):
        network = nn.Sequential(nn.Linear(30, 40))
        data = lambda n, g: torch.rand(n, 30, generator=g)  # noqa: E731
        megabytes(0.9 * 4 * 4 * 1000 * (30 + 40 + 3) / 1e6)
        for autocast in (False, True):
            with pytest.raises(ValueError, match="C must fit into memory"):
                self.fit(network, data, ["0"], C=1000, batch_size=8, autocast=autocast)
