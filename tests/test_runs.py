"""Runs: the same again from a seed, saved and loaded without loss, and bad input refused before any work."""

import json

import pandas as pd
import pytest
import torch
from networks import MLP, draw

import pd_helpers as pdh
from pd_helpers.core import spd
from pd_helpers.runs import files, recording
from pd_helpers.runs.evaluation import evaluate
from pd_helpers.targets.tms import TMS

RESIDUAL = {"n_features": 6, "d_resid": 40, "d_mlp": 3, "target_batch_size": 64, "batch_size": 64, "C": 8}
SMALL = {
    "apd/tms_5-2": {"batch_size": 64, "n_init": 1},
    "spd/tms_5-2": {"batch_size": 64, "C": 6, "d_gate": 4},
    "apd/resid_mlp_2": {**RESIDUAL, "rank": 2, "feature_probability": 0.3, "unit_norm": True},
    "spd/resid_mlp_1": {**RESIDUAL, "d_gate": 4, "feature_probability": 0.3},
    "apd/gated": {"batch_size": 64, "target_steps": None},
}
NAMES = ["apd/tms_5-2", "spd/tms_5-2"]
pytestmark = pytest.mark.usefixtures("quick_evaluation")  # these ask what a run holds, not how good it is


def small_run(name, seed=0, **changes):
    settings = {"steps": 20, "target_steps": 50, "faithfulness_warmup_steps": 5, **SMALL[name], **changes}
    if settings["target_steps"] is None:  # a target that is not trained
        del settings["target_steps"]
    return pdh.run(name, seed, show_progress=False, **settings)


@pytest.fixture(scope="module", params=NAMES)
def run(request):
    return small_run(request.param)


@pytest.fixture(scope="module")
def apd_run():
    return small_run("apd/tms_5-2")


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    return run.save(tmp_path_factory.mktemp("runs") / "one")


def factors(run):
    return [factor.detach() for factor in run.components.factors]


def gaussian(batch_size, generator):
    return torch.randn(batch_size, 3, generator=generator)


def fit(config=None, data=gaussian, layers=("fc1", "fc2"), target=None, **options):
    config = config or pdh.APDConfig(steps=5, batch_size=16, top_k=1.0)
    layers = layers if isinstance(layers, dict) else list(layers)
    return pdh.fit(MLP() if target is None else target, config, data, layers, show_progress=False, **options)


class TestSeeds:
    def test_the_same_seed_gives_the_same_run(self, run):
        again = small_run(run.name)
        assert all(map(torch.equal, factors(run), factors(again)))
        assert again.metrics == run.metrics
        pd.testing.assert_frame_equal(again.history, run.history)

    @pytest.mark.parametrize("change", [{"seed": 1}, {"seed": 1, "target_seed": 0}], ids=["all", "target kept"])
    def test_another_seed_gives_another_run(self, run, change):
        other = small_run(run.name, **change)
        assert not any(map(torch.equal, factors(run), factors(other)))
        assert torch.equal(run.target.embed.weight, other.target.embed.weight) == ("target_seed" in change)


class TestRecords:
    def test_metrics_have_the_promised_keys(self, run):
        assert {"mmcs", "ml2r", "faithfulness", "recon", "n_alive", "l0"} <= set(run.metrics)
        assert set(run.metrics["n_alive"]) == set(run.metrics["l0"]) == {"embed", "unembed"}
        assert ("identity_ci_error" in run.metrics) == run.name.startswith("spd")

    def test_history_and_snapshots_end_at_the_last_step(self, run):
        history = run.history
        assert history["step"].iloc[-1] == 20
        assert history["step"].is_monotonic_increasing
        assert {"step", "faithfulness", "mmcs", "ml2r"} <= set(history.columns)
        assert [s.step for s in run.snapshots] == [0, *history["step"]]
        last = run.snapshots[-1].factors["embed"]
        assert all(map(torch.equal, last, factors(run)))
        assert not torch.equal(run.snapshots[0].factors["embed"][0], last[0])
        torch.testing.assert_close(run.snapshots[-1].P("embed"), run.components.layers["embed"].P.detach())

    def test_metrics_describe_the_run(self, run):
        W, P = run.target.embed.weight, run.components.layers["embed"].P.detach()
        assert run.metrics["faithfulness"] == pytest.approx((W - P.sum(dim=0)).square().mean().item(), rel=1e-4)
        cosines = torch.nn.functional.cosine_similarity(P, W.expand_as(P), dim=1)
        assert run.metrics["mmcs"] == pytest.approx(cosines.max(dim=0).values.mean().item(), rel=1e-5)

    def test_apd_activates_top_k_components_per_input(self, apd_run):
        for layer, l0 in apd_run.metrics["l0"].items():
            assert l0 <= apd_run.config.top_k * (1 + 1e-3), layer
            assert l0 > 0.1


@pytest.mark.usefixtures("as_a_user")
class TestSaving:
    def test_a_loaded_run_equals_the_saved_one(self, run, saved):
        loaded = pdh.load(saved)
        assert (loaded.name, loaded.seed, loaded.seconds, loaded.target_seconds) == (
            run.name,
            run.seed,
            run.seconds,
            run.target_seconds,
        )
        assert (loaded.config, loaded.target_config) == (run.config, run.target_config)
        modules = [(run.components, loaded.components)]
        if run.importance:
            modules.append((run.importance, loaded.importance))
        for mine, stored in modules:
            mine, stored = mine.state_dict(), stored.state_dict()
            assert mine.keys() == stored.keys()
            assert all(torch.equal(mine[key], stored[key]) for key in mine)
        pd.testing.assert_frame_equal(loaded.history, run.history)
        for before, after in zip(run.snapshots, loaded.snapshots, strict=True):
            assert before.step == after.step
            assert all(map(torch.equal, before.factors["embed"], after.factors["embed"]))
        assert loaded.metrics == run.metrics
        assert evaluate(loaded) == run.metrics
        assert not any(p.requires_grad for p in loaded.target.parameters())

    def test_a_run_is_safetensors_and_json(self, saved):
        assert sorted(path.name for path in saved.iterdir()) == ["run.json", "tensors.safetensors"]
        assert [path.name for path in saved.parent.iterdir()] == ["one"]
        assert json.loads((saved / "run.json").read_text())["config"]["steps"] == 20

    def test_saving_takes_an_empty_folder_and_makes_parents(self, apd_run, tmp_path):
        (tmp_path / "empty").mkdir()
        assert pdh.load(apd_run.save(tmp_path / "empty")).metrics == apd_run.metrics
        assert pdh.load(apd_run.save(str(tmp_path / "a" / "b"))).metrics == apd_run.metrics

    def test_a_loaded_run_can_be_saved_again(self, saved, tmp_path):
        again = pdh.load(pdh.load(saved).save(tmp_path / "again"))
        assert again.metrics == pdh.load(saved).metrics

    def test_a_network_of_your_own_is_loaded_into_a_module_of_its_kind(self, tmp_path):
        run = fit(pdh.SPDConfig(steps=5, batch_size=16, d_gate=3), layers={"fc1": 3, "fc2": 2})
        folder = run.save(tmp_path / "mine")
        loaded = pdh.load(folder, target=MLP())
        assert {path: layer.C for path, layer in loaded.components.layers.items()} == {"fc1": 3, "fc2": 2}
        assert all(map(torch.equal, factors(run), factors(loaded)))
        x = draw(4, 3).float()
        assert torch.equal(run.target(x), loaded.target(x))
        assert torch.equal(run.importances(x)["fc2"], loaded.importances(x)["fc2"])
        with pytest.raises(ValueError, match="mine' cannot be read: it decomposes a network of your own"):
            pdh.load(folder)
        with pytest.raises(ValueError, match="mine' cannot be read: .*fc1.* in target=; a network of the same"):
            pdh.load(folder, target=MLP(d_hidden=5))


class TestDamagedFolders:
    @pytest.fixture
    def copy(self, apd_run, tmp_path):
        return apd_run.save(tmp_path / "copy")

    @pytest.mark.parametrize("keep", [0, 100, -1])
    def test_a_cut_tensors_file(self, copy, keep):
        tensors = copy / "tensors.safetensors"
        tensors.write_bytes(tensors.read_bytes()[:keep])
        with pytest.raises(ValueError, match=r"copy' is damaged: tensors\.safetensors"):
            pdh.load(copy)

    def test_a_missing_tensors_file(self, copy):
        (copy / "tensors.safetensors").unlink()
        with pytest.raises(ValueError, match=r"copy' is damaged: tensors\.safetensors"):
            pdh.load(copy)

    @pytest.mark.parametrize(
        "text", [b"", b"{", b"not json", b"\xff\xfe\x00", b"[]", b"null", b'{"format": "other 1"}']
    )
    def test_a_run_json_that_is_none(self, copy, text):
        (copy / "run.json").write_bytes(text)
        with pytest.raises(ValueError, match="copy' is not a run"):
            pdh.load(copy)

    def test_a_foreign_folder(self, tmp_path):
        (tmp_path / "holiday.jpg").touch()
        with pytest.raises(ValueError, match=f"{tmp_path.name}' is not a run: it holds no run.json"):
            pdh.load(tmp_path)

    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(ValueError, match="nowhere' is not a run: it does not exist"):
            pdh.load(tmp_path / "nowhere")


class TestPlacesThatCannotBeWritten:
    def test_a_folder_that_is_not_empty(self, apd_run, tmp_path):
        (tmp_path / "mine.txt").write_text("precious")
        with pytest.raises(ValueError, match=f"{tmp_path.name}', which is not empty; .*-2' works"):
            apd_run.save(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    def test_a_file(self, apd_run, tmp_path):
        (tmp_path / "file").write_text("precious")
        with pytest.raises(ValueError, match="file', which is a file; .* works"):
            apd_run.save(tmp_path / "file")
        assert (tmp_path / "file").read_text() == "precious"

    def test_a_place_below_a_file(self, apd_run, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match="below', which cannot be written .*; .* works"):
            apd_run.save(tmp_path / "file" / "below")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    @pytest.mark.usefixtures("as_a_user")
    def test_a_failure_half_way_leaves_no_files(self, apd_run, tmp_path, monkeypatch):
        def full(path, data):
            path.write_bytes(data[: len(data) // 2])
            raise OSError("no space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(files, "write_file", full)
            with pytest.raises(OSError, match="no space left"):
                apd_run.save(tmp_path / "out")
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        assert pdh.load(apd_run.save(tmp_path / "out")).metrics == apd_run.metrics


class TestGivenTarget:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_module_or_a_run_keeps_its_weights(self, apd_run, name):
        before = {key: value.clone() for key, value in apd_run.target.state_dict().items()}
        for target in (apd_run, apd_run.target):
            other = small_run(name, seed=7, target=target)
            assert other.target.state_dict().keys() == before.keys()
            assert all(torch.equal(value, before[key]) for key, value in other.target.state_dict().items())
            assert other.target_seconds == 0

    def test_sizes_come_from_the_target(self):
        other = small_run("spd/tms_5-2", target=TMS(n_features=7, n_hidden=3, identity=True))
        assert (other.target_config.n_features, other.target_config.n_hidden) == (7, 3)
        assert set(other.components.layers) == {"embed", "identity"}

    @pytest.mark.parametrize("as_run", [True, False])
    def test_a_size_it_does_not_have_is_refused(self, apd_run, as_run):
        with pytest.raises(ValueError, match="n_features is 6, but the target given has 5; leave n_features out"):
            small_run("spd/tms_5-2", target=apd_run if as_run else apd_run.target, n_features=6)

    def test_another_kind_of_network_is_refused(self):
        with pytest.raises(TypeError, match="target must be a TMS or a Run with one, but is a MLP; fit"):
            small_run("apd/tms_5-2", target=MLP())

    def test_weights_that_are_not_finite_are_refused(self):
        target = TMS(n_features=5, n_hidden=2)
        target.embed.weight.data[0, 0] = torch.nan
        with pytest.raises(ValueError, match="not finite"):
            small_run("apd/tms_5-2", target=target)


class TestOverrides:
    def test_any_field_sizes_included(self):
        run = small_run("spd/tms_5-2", n_features=8, n_hidden=3, C=9, identity=True, importance_coeff=0.5)
        assert run.target.embed.weight.shape == (3, 8)
        assert run.components.layers["embed"].U.shape == (9, 3, 1)
        assert set(run.metrics["l0"]) == {"embed", "identity", "unembed"}
        assert run.config.importance_coeff == 0.5

    def test_rank(self):
        assert small_run("apd/tms_5-2", rank=1).components.layers["embed"].V.shape == (5, 1, 5)

    @pytest.mark.usefixtures("as_a_user")
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"simplicity_coef": 1.0}, ValueError, "'simplicity_coef': did you mean 'simplicity_coeff'?"),
            ({"n_features": 0}, ValueError, "n_features must be .* but is 0; 5 works"),
            ({"C": 0}, ValueError, "C must be .* but is 0; 5 works"),
            ({"steps": 0}, ValueError, "steps must be .* but is 0"),
            ({"batch_size": 0}, ValueError, "batch_size must be .* but is 0"),
            ({"feature_probability": 1.5}, ValueError, "feature_probability must be .* but is 1.5"),
            ({"simplicity_coeff": float("nan")}, ValueError, "simplicity_coeff must be .* but is nan"),
            ({"C": "five"}, TypeError, "C must be .* but is 'five'"),
            ({"seed": -1}, ValueError, "seed must be a whole number of at least 0, but is -1; 0 works"),
            ({"seed": 0.5}, ValueError, "seed must be a whole number of at least 0, but is 0.5; 0 works"),
            ({"device": "tpu"}, ValueError, "device must be .* but is 'tpu'"),
        ],
    )
    def test_bad_values_are_refused_before_any_work(self, change, error, message, monkeypatch):
        monkeypatch.setattr(pdh.TMSConfig, "new", lambda *_, **__: pytest.fail("the target was trained"))
        with pytest.raises(error, match=message):
            pdh.run("apd/tms_5-2", **{"show_progress": False, **change})

    def test_unknown_experiment(self):
        with pytest.raises(ValueError, match="unknown experiment 'spd/tms52': did you mean 'spd/tms_5-2'?"):
            pdh.run("spd/tms52")

    def test_features_that_are_never_on_are_no_error(self):
        run = small_run("spd/tms_5-2", feature_probability=0.0)
        assert run.metrics["recon"] == 0


class TestFit:
    @pytest.mark.parametrize(
        ("config", "layers", "shapes"),
        [
            (pdh.APDConfig(C=3, rank=2, steps=60, batch_size=32, top_k=1.0), ["fc1", "fc2"], {"fc1": 3, "fc2": 3}),
            (pdh.SPDConfig(C=4, d_gate=3, steps=60, lr=0.03, batch_size=32), ["fc1", "fc2"], {"fc1": 4, "fc2": 4}),
            (
                pdh.SPDConfig(C=4, d_gate=3, steps=60, lr=0.03, batch_size=32),
                {"fc1": 6, "fc2": 2},
                {"fc1": 6, "fc2": 2},
            ),
        ],
        ids=["apd", "spd", "spd with a C for each layer"],
    )
    def test_a_network_of_your_own(self, config, layers, shapes):
        run = fit(config, layers=layers)
        assert {path: layer.C for path, layer in run.components.layers.items()} == shapes
        assert set(run.metrics["n_alive"]) == set(run.metrics["l0"]) == {"fc1", "fc2"}
        assert run.history["faithfulness"].iloc[-1] < run.history["faithfulness"].iloc[0]
        assert run.name is None

    def test_the_seed_decides(self):
        target = MLP()
        first, again, other = (factors(fit(target=target, seed=seed)) for seed in (0, 0, 1))
        assert all(map(torch.equal, first, again))
        assert not any(map(torch.equal, first, other))

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"layers": ["fc3"]}, ValueError, "no layer 'fc3'"),
            ({"layers": []}, ValueError, "names no layer"),
            ({"layers": {"fc1": 0}}, ValueError, r"C\['fc1'\] must be at least 1, but is 0"),
            ({"data": lambda n, g: torch.randn(n, 4, generator=g)}, ValueError, "target does not take what data gives"),
            ({"device": "tpu"}, ValueError, "device must be"),
        ],
    )
    def test_bad_arguments(self, options, error, message):
        with pytest.raises(error, match=message):
            fit(**options)

    def test_a_target_with_non_finite_weights(self):
        target = MLP()
        target.fc2.weight.data[0, 0] = torch.nan
        with pytest.raises(ValueError, match="not finite"):
            fit(target=target)

    @pytest.mark.parametrize(
        "config",
        [
            pdh.APDConfig(steps=30, batch_size=16, top_k=1.0, lr=1e30),
            pdh.SPDConfig(steps=30, batch_size=16, lr=1e30),
        ],
        ids=["apd", "spd"],
    )
    def test_a_loss_that_blows_up_stops_training_and_names_the_step(self, config):
        with pytest.raises(FloatingPointError, match=r"blew up at step [12]; a smaller lr than .* helps"):
            fit(config)


@pytest.mark.parametrize("best", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_of_several_starts_the_best_goes_on(name, best):
    """One start is given the target's own columns as components: its losses are the lowest, and it must win."""
    settings = {"C": 5, "steps": 5, "selection_steps": 3, "n_init": 3, "lr": 1e-9, "batch_size": 64, "target_steps": 50}
    run = pdh.prepare(name, show_progress=False, faithfulness_warmup_steps=0, **settings)
    candidates = [candidate.method.model for candidate in run.candidates]
    layer, W = candidates[best].layers["embed"], run.target.embed.weight
    with torch.no_grad():
        layer.U.zero_()
        layer.V.zero_()
        layer.U[:, :, 0], layer.V[:, 0] = W.T, torch.eye(5)  # component c is column c of W
    steps = list(run.steps())
    assert run.components is candidates[best]
    assert run.target_seconds > 0
    assert len(steps) == 3 * 3 + 2  # three starts of three steps, and two more for the best
    assert steps[-1] == run.history["step"].iloc[-1] == 5
    assert evaluate(run)["faithfulness"] == pytest.approx(0, abs=1e-6)


def test_a_single_start_trains_from_the_first_initialisation():
    run = small_run("apd/tms_5-2")
    first = pdh.prepare(
        "apd/tms_5-2", show_progress=False, target_steps=50, faithfulness_warmup_steps=5, steps=20, n_init=3
    )
    for mine, theirs in zip(run.snapshots[0].factors["embed"], factors(first), strict=True):
        assert torch.equal(mine, theirs)


def test_a_start_that_blows_up_does_not_win():
    settings = {"steps": 40, "n_init": 2, "selection_steps": 3, "target_steps": 50}
    run = pdh.prepare("apd/tms_5-2", show_progress=False, **settings)
    with torch.no_grad():
        run.components.factors[0].fill_(torch.nan)
    run.train(show_progress=False)
    assert run.step == 40
    assert run.metrics["faithfulness"] < 1


def test_when_every_start_blows_up_the_error_names_the_step():
    with pytest.raises(FloatingPointError, match="blew up at step"):
        small_run("apd/tms_5-2", n_init=2, selection_steps=10, lr=1e20)


def test_saving_into_the_empty_working_directory(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run.save(".")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.json", "tensors.safetensors"]
    assert pdh.load(tmp_path).metrics == run.metrics


def test_a_save_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_file", full)
    with pytest.raises(OSError, match="No space"):
        run.save(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_the_seed_of_a_target_is_remembered(apd_run):
    given = pdh.prepare("spd/tms_5-2", 7, target=apd_run, show_progress=False)
    assert given.target_config.target_seed == apd_run.seed
    assert given.target is apd_run.target


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layers": {"0": 3, "2": 4}}, ValueError, "the same C for each"),
        ({"layers": "0"}, TypeError, r"\['0'\] works"),
        ({"config": {"C": 3}}, TypeError, "config must be an? .*APDConfig.*, but is {'C': 3}"),
        ({"seed": -1}, ValueError, "seed must be a whole number"),
        ({"data": lambda n, g: [[0.0] * 3] * n}, ValueError, "but gave"),
        ({"data": lambda n, g: torch.zeros(n)}, ValueError, r"shape \(2,\)"),
        ({"data": lambda n, g: torch.zeros(n, 4, 2)}, ValueError, r"target does not take .* shape \(2, 4, 2\)"),
        ({"data": lambda n, g: torch.full((n, 3), torch.nan)}, ValueError, "data gives numbers that are not finite"),
    ],
)
def test_fit_names_what_is_wrong(arguments, error, message):
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    given = {"config": pdh.APDConfig(steps=2), "data": lambda n, g: torch.rand(n, 3, generator=g), "layers": ["0", "2"]}
    given |= arguments
    with pytest.raises(error, match=message):
        pdh.fit(network, given["config"], given["data"], given["layers"], seed=given.get("seed", 0))


def test_a_network_in_double_precision():
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).double()

    def data(n, g):
        return torch.rand(n, 3, generator=g, dtype=torch.float64)

    config = pdh.SPDConfig(steps=3, batch_size=8, C=4)
    run = pdh.fit(network, config, data, ["0", "2"], show_progress=False)
    assert run.components.layers["0"].U.dtype == torch.float64


@pytest.mark.parametrize("name", ["keys", "values", "a-b"])
def test_layers_may_have_any_name(name):
    network = torch.nn.Module()
    network.add_module(name, torch.nn.Linear(3, 3))
    assert list(pdh.decompose(network, {name: 2}).layers) == [name]


def test_two_layers_that_share_a_weight_are_one():
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    network[1].weight = network[0].weight
    with pytest.raises(ValueError, match="share one weight"):
        pdh.decompose(network, {"0": 3, "1": 3})
    assert list(pdh.decompose(network, {"0": 3}).uses) == ["0", "1"]


def test_buffers_of_the_target_are_saved(tmp_path):
    def network():
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)).eval()

    def data(n, g):
        return torch.rand(n, 3, generator=g)

    target = network()
    target[1].running_mean.fill_(0.3)
    run = pdh.fit(target, pdh.SPDConfig(steps=2, batch_size=8, C=4), data, ["0", "2"], show_progress=False)
    loaded = pdh.load(run.save(tmp_path / "run"), target=network())
    assert torch.equal(loaded.target[1].running_mean, target[1].running_mean)


MEASURED = {
    "apd/resid_mlp_2": {"contribution_r", "n_own", "n_doubled", "topk_mse", "scrubbed_mse", "anti_scrubbed_mse"},
    "spd/resid_mlp_1": {"contribution_r", "identity_ci_error"},
    "apd/gated": {"n_served"},
}


@pytest.fixture(scope="module", params=MEASURED)
def residual_run(request):
    return small_run(request.param)


class TestOtherTargets:
    """Of residual networks: what is measured, and that runs come back as they were."""

    def test_metrics_have_the_promised_keys(self, residual_run):
        every = {"mmcs", "ml2r", "faithfulness", "recon", "n_alive", "l0"}
        assert every | MEASURED[residual_run.name] <= set(residual_run.metrics)
        assert set(residual_run.metrics["l0"]) == set(residual_run.target.layers)
        json.dumps(residual_run.metrics)

    def test_a_loaded_run_equals_the_saved_one(self, residual_run, tmp_path):
        loaded = pdh.load(residual_run.save(tmp_path / "run"))
        assert evaluate(loaded) == residual_run.metrics
        assert (loaded.config, loaded.target_config) == (residual_run.config, residual_run.target_config)
        x = residual_run.data(50, torch.Generator().manual_seed(1))
        assert torch.equal(loaded.target(x), residual_run.target(x))

    def test_a_stopped_run_goes_on_bit_for_bit(self, residual_run, tmp_path):
        settings = residual_run.config.to_dict() | residual_run.target_config.to_dict()
        started = pdh.prepare(residual_run.name, residual_run.seed, show_progress=False, **settings)
        for _ in zip(range(7), started.steps(), strict=False):
            pass
        files.write_checkpoint(tmp_path / "run", *started.pack_checkpoint())
        resumed = pdh.resume(tmp_path / "run", show_progress=False)
        assert all(map(torch.equal, factors(resumed), factors(residual_run)))
        assert resumed.metrics == residual_run.metrics

    def test_the_same_network_can_be_decomposed_otherwise(self, residual_run):
        again = small_run(
            residual_run.name,
            1,
            target=residual_run,
            **({} if residual_run.name == "apd/gated" else {"target_steps": 50}),
        )
        x = residual_run.data(50, torch.Generator().manual_seed(1))
        assert torch.equal(again.target(x), residual_run.target(x))
        assert again.target_config.target_seed == residual_run.seed

    def test_a_network_of_another_kind_is_refused(self, residual_run):
        with pytest.raises(TypeError, match="target must be a (ResidualMLP|GatedNetwork) or a Run .*, but is a TMS"):
            pdh.run(residual_run.name, target=TMS(n_features=3, n_hidden=2), show_progress=False)

    def test_narrow_networks_are_decomposed_in_place_of_wide_ones(self):
        config = pdh.preset("spd/resid_mlp_1").replace(**SMALL["spd/resid_mlp_1"], target_steps=5).target
        wide = pdh.make_target(config, 0, show_progress=False)
        run = small_run("spd/resid_mlp_1", target=wide, target_steps=5)
        assert wide.mlps[0].W_in.in_features == 40
        assert run.target.mlps[0].W_in.in_features == 12
        x = run.data(50, torch.Generator().manual_seed(1))
        torch.testing.assert_close(run.target(x), wide(x))


def test_hidden_reconstruction_needs_hidden_activations():
    config = pdh.preset("apd/resid_mlp_1").replace(**RESIDUAL, target_steps=5).target
    target = pdh.make_target(config, 0, show_progress=False)
    with pytest.raises(ValueError, match="hidden_coeff is 1, but no activation .* layers that read mlps.0.W_out"):
        pdh.fit(target, pdh.APDConfig(C=4, hidden_coeff=1.0), config.features(), ["mlps.0.W_in"], show_progress=False)


def test_snapshots_of_large_components_are_few(monkeypatch):
    monkeypatch.setattr(recording, "SNAPSHOT_BYTES", 3000)
    run = small_run("apd/tms_5-2", steps=80)  # 105 numbers, 420 bytes
    assert 2 <= len(run.snapshots) <= 3000 // 420 + 2
    assert (run.snapshots[0].step, run.snapshots[-1].step) == (0, 80)
    assert len(run.history) > len(run.snapshots)


def test_importances_are_computed_a_few_rows_at_a_time(monkeypatch):
    run = small_run("spd/tms_5-2")
    x = run.data(50, torch.Generator().manual_seed(0))
    whole = run.importances(x)
    monkeypatch.setattr(spd, "CHUNK", 7)
    for path, g in run.importances(x).items():
        torch.testing.assert_close(g, whole[path])
