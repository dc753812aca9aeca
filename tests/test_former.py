"""What versions 0.1.0 and 0.2.0 stored is read, and goes on to the same end as today; their names are understood."""

import shutil
from pathlib import Path

import pytest
import torch
from house import PACKAGE
from networks import MLP

import pd_helpers as pdh
from pd_helpers.__main__ import main
from pd_helpers.former import MODULES
from pd_helpers.runs import files
from pd_helpers.runs.evaluation import evaluate

STORED = Path(__file__).with_name("stored")
COMMON = {
    "steps": 30,
    "n_init": 2,
    "selection_steps": 10,
    "target_steps": 50,
    "faithfulness_warmup_steps": 5,
    "batch_size": 64,
}
SMALL = {"apd/tms_5-2": COMMON, "spd/tms_5-2": COMMON | {"C": 6, "d_gate": 4}}
UNFINISHED = {
    "apd_competing": "apd/tms_5-2",
    "spd_competing": "spd/tms_5-2",
    "spd_chosen": "spd/tms_5-2",
    "spd_competing_format_2": "spd/tms_5-2",
}

pytestmark = pytest.mark.usefixtures("as_a_user", "one_thread")


@pytest.fixture(scope="module")
def whole():
    """Name → the run of today with the settings of the stored ones."""
    return {name: pdh.run(name, 3, show_progress=False, device="cpu", **settings) for name, settings in SMALL.items()}


@pytest.mark.parametrize("folder", UNFINISHED)
def test_an_unfinished_run_resumes_to_the_same_end(folder, whole, tmp_path):
    shutil.copytree(STORED / folder, tmp_path / "run")
    with pytest.warns(UserWarning, match=r"started with pd_helpers 0\.[12]\.0"):
        resumed = pdh.resume(tmp_path / "run", show_progress=False)
    today = whole[UNFINISHED[folder]]
    assert resumed.config == today.config
    assert list(resumed.history) == list(today.history)
    for mine, theirs in zip(resumed.components.factors, today.components.factors, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)  # stored on another machine
    assert resumed.metrics["recon"] == pytest.approx(today.metrics["recon"], rel=1e-3)
    again = pdh.load(tmp_path / "run")
    assert again.metrics == resumed.metrics
    assert files.read_facts(tmp_path / "run")["format"] == files.FORMAT


@pytest.mark.parametrize("folder", ["spd_finished", "spd_finished_format_2"])
def test_a_finished_run_loads_and_measures_as_recorded(folder, whole):
    run = pdh.load(STORED / folder)
    assert run.config.n_init == 2
    assert run.config.selection_steps == 10
    assert "importance_minimality" in run.history
    assert run.history["step"].iloc[-1] == 30
    measured = evaluate(run)
    for name in ("mmcs", "ml2r", "faithfulness", "recon"):
        assert measured[name] == pytest.approx(run.metrics[name], rel=1e-3)
    for mine, theirs in zip(run.components.factors, whole["spd/tms_5-2"].components.factors, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_a_network_of_your_own_is_loaded_into_a_module_of_its_kind():
    target = MLP()
    run = pdh.load(STORED / "apd_own_network", target=target)
    assert torch.equal(run.target.fc1.weight, target.fc1.weight)
    assert list(run.components.layers) == ["fc1", "fc2"]
    assert run.metrics["l0"]["fc1"] <= 1.0


class TestFormerNames:
    def test_of_fields_are_understood(self):
        config = pdh.SPDConfig(starts=4, start_steps=50)
        assert (config.n_init, config.selection_steps) == (4, 50)
        assert (config.starts, config.start_steps) == (4, 50)
        assert config.replace(starts=2).n_init == 2
        assert set(config.to_dict()) & {"starts", "start_steps"} == set()

    def test_of_fields_are_understood_by_runs(self):
        run = pdh.prepare("apd/tms_5-2", show_progress=False, device="cpu", starts=1, target_steps=5)
        assert len(run.candidates) == 1

    def test_of_fields_are_understood_on_the_command_line(self, capsys):
        words = [w for key, value in SMALL["apd/tms_5-2"].items() for w in ("--set", f"{key}={value}")]
        assert main(["run", "apd/tms_5-2", *words, "--set", "starts=1", "--device", "cpu"]) == 0
        capsys.readouterr()

    def test_of_modules_are_understood(self):
        with pytest.warns(
            FutureWarning, match="pd_helpers.experiments is now pd_helpers.analysis.neuron_contributions and"
        ):
            from pd_helpers import experiments
        with pytest.warns(
            FutureWarning, match="pd_helpers.shipping is now pd_helpers.runs.shipped and pd_helpers.runs"
        ):
            from pd_helpers.shipping import end_state
        with pytest.warns(FutureWarning, match="pd_helpers.losses is now"):
            from pd_helpers import losses
        assert experiments.scrub is pdh.analysis.scrubbing.scrub
        assert end_state is pdh.end_state
        assert losses.reconstruction is pdh.core.losses.recon
        with pytest.raises(AttributeError, match="pd_helpers.experiments had no 'scrubs'"):
            experiments.scrubs  # noqa: B018

    @pytest.mark.parametrize("name", MODULES)
    def test_of_modules_name_present_ones(self, name):
        for place in MODULES[name]:
            assert (PACKAGE / f"{place.replace('.', '/')}.py").is_file()

    def test_an_unknown_field_is_answered_with_the_nearest(self):
        with pytest.raises(TypeError, match="unknown field 'start': did you mean"):
            pdh.SPDConfig(start=4)

    def test_of_labs_and_checks_are_understood(self):
        assert pdh.widgets.PriceLab is pdh.widgets.ImportanceCoefficientLab
        assert pdh.checks.largest_price is pdh.checks.largest_coefficient
