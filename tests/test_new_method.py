"""A method of one's own is one file: it is run, saved, resumed, loaded, swept and analysed like APD and SPD."""

import dataclasses
import itertools
import json

import pytest
import torch
from fixed_masks import FixedMasksConfig
from networks import MLP

import pd_helpers as pdh
from pd_helpers.analysis import comparison
from pd_helpers.runs import files
from pd_helpers.runs.presets import Preset

pytestmark = pytest.mark.usefixtures("as_a_user", "one_thread")
PRESET = Preset("fixed/tms_5-2", "nowhere", pdh.TMSConfig(target_steps=200), FixedMasksConfig())


@pytest.fixture(scope="module")
def run():
    return pdh.run(PRESET, 3, show_progress=False, device="cpu")


def assert_same(mine, theirs):
    for a, b in zip(mine.method.parameters().values(), theirs.method.parameters().values(), strict=True):
        assert torch.equal(a, b)
    assert mine.metrics == theirs.metrics
    assert torch.equal(mine.method.largest_recon, theirs.method.largest_recon)


def test_it_is_run(run):
    assert run.method.name == "fixed masks"
    assert list(run.history) == ["step", "faithfulness", "recon", "importance", "mmcs", "ml2r"]
    assert run.history["recon"].iloc[-1] < run.history["recon"].iloc[0]
    assert run.metrics["faithfulness"] < 0.1


def test_it_is_saved_and_loaded(run, tmp_path):
    loaded = pdh.load(run.save(tmp_path / "run"))
    assert loaded.config == run.config
    assert loaded.metrics == run.metrics
    for a, b in zip(loaded.method.parameters().values(), run.method.parameters().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("n", [5, 15, 40])
def test_it_is_resumed(run, n, tmp_path):
    """While its two initialisations compete, and afterwards; its own state comes along."""
    stopped = pdh.prepare(PRESET, 3, show_progress=False, device="cpu")
    assert len(list(itertools.islice(stopped.steps(), n))) == n
    files.write_checkpoint(tmp_path / "run", *stopped.pack_checkpoint())
    assert_same(pdh.resume(tmp_path / "run", show_progress=False), run)


def test_it_is_swept(run):
    grid = {"lr": [run.config.lr, run.config.lr / 10], "seed": [3]}
    table = pdh.sweep(PRESET, grid, show_progress=False, n_jobs=1, device="cpu")
    assert table["error"].tolist() == [None] * 2
    assert table["faithfulness"][0] == pytest.approx(run.metrics["faithfulness"], rel=1e-3)
    assert table["faithfulness"][1] > 10 * table["faithfulness"][0]


def test_its_importances_and_effects_are_found(run):
    x = torch.eye(5)
    g = run.importances(x)
    assert {use: table.shape for use, table in g.items()} == {"embed": (5, 6), "unembed": (5, 6)}
    effects = comparison.effects(run, x, torch.Generator().manual_seed(0), n_draws=2, n_points=2)
    torch.testing.assert_close(effects.importance, torch.cat([g["embed"], g["unembed"]], dim=1))
    assert comparison.alive(run).shape == (6,)


def test_it_decomposes_a_network_of_your_own(tmp_path):
    def data(n, generator):
        return torch.randn(n, 3, generator=generator)

    run = pdh.fit(MLP(), FixedMasksConfig(n_init=1, steps=5), data, ["fc1", "fc2"], show_progress=False)
    assert pdh.load(run.save(tmp_path / "run"), target=MLP()).metrics == run.metrics


def test_a_run_of_a_method_that_is_not_imported_says_so(run, tmp_path):
    folder = run.save(tmp_path / "run")
    facts = json.loads((folder / "run.json").read_text()) | {"method": "other"}
    (folder / "run.json").write_text(json.dumps(files.sealed(facts)))
    with pytest.raises(ValueError, match="method is 'other', which is not imported here; .*'apd', 'spd'"):
        pdh.load(folder)


def test_a_configuration_of_no_method_is_refused():
    stranger = dataclasses.make_dataclass("Stranger", ["C"])(3)
    with pytest.raises(TypeError, match="config must be .* but is a Stranger"):
        pdh.fit(MLP(), stranger, lambda n, g: torch.randn(n, 3, generator=g), ["fc1"])
