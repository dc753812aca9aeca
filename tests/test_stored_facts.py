"""What is read was written: each fact and each tensor of a stored run is checked, before anything is built."""

import copy
import hashlib
import json
import math
import subprocess
import sys

import pytest
import torch
from networks import MLP
from safetensors.torch import load_file, save

import pd_helpers as pdh
from pd_helpers.core.training import load_optimizer_state, optimizer_state
from pd_helpers.runs import files
from pd_helpers.runs.run import Run
from pd_helpers.runs.shipped import SHIPPED, manifest

SMALL = {"steps": 12, "n_init": 2, "selection_steps": 4, "target_steps": 20, "batch_size": 16, "C": 6, "d_gate": 4}

pytestmark = pytest.mark.usefixtures("as_a_user", "quick_evaluation")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Tensors and facts of a finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    pdh.run("spd/tms_5-2", 3, show_progress=False, out=folder, **SMALL)
    return load_file(folder / files.TENSORS), json.loads((folder / files.RUN).read_text())


@pytest.fixture(scope="module")
def unfinished():
    """Tensors and facts of a checkpoint."""
    run = pdh.prepare("spd/tms_5-2", 3, show_progress=False, **SMALL)
    for _ in zip(range(10), run.steps(), strict=False):
        pass
    return run.pack_checkpoint()


def changed(facts, place, value):
    """A copy of facts in which the value at a place such as "config.C" is another."""
    facts = copy.deepcopy(facts)
    *path, last = place.split(".")
    inner = facts
    for key in path:
        inner = inner[int(key) if key.isdigit() else key]
    inner[last] = value
    return facts


def write(folder, tensors, facts, *, seal=True):
    """A finished run in a folder, by default with the checksums that its content has."""
    folder.mkdir(exist_ok=True)
    (folder / files.TENSORS).write_bytes(save(tensors))
    facts = {**facts, "sha256": hashlib.sha256((folder / files.TENSORS).read_bytes()).hexdigest()}
    (folder / files.RUN).write_text(json.dumps(files.sealed(facts) if seal else facts))
    return folder


class TestFinished:
    def test_what_was_written_is_read(self, finished, tmp_path):
        assert pdh.load(write(tmp_path / "run", *finished)).metrics == finished[1]["metrics"]

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            ("history.mmcs", None),
            ("metrics.recon", 0.0),
            ("seconds", 1.0),
            ("date", "2020-02-02"),
            ("target_config.target_steps", 21),
            ("config.lr", 0.5),
            ("seed", 4),
            ("shipped", {}),
        ],
    )
    def test_a_change_of_anything_is_noticed(self, finished, tmp_path, place, value):
        tensors, facts = finished
        value = facts["history"]["mmcs"][::-1] if value is None else value
        folder = write(tmp_path / "run", tensors, changed(facts, place, value), seal=False)
        with pytest.raises(ValueError, match=r"run.json: checksum does not fit"):
            pdh.load(folder)

    @pytest.mark.parametrize("old", files.FORMER_FORMATS)
    def test_the_checksum_cannot_be_avoided_by_an_older_format(self, finished, tmp_path, old):
        tensors, facts = finished
        folder = write(tmp_path / "run", tensors, changed(facts, "format", old), seal=False)
        with pytest.raises(ValueError, match="checksum does not fit"):
            pdh.load(folder)
        without = {name: value for name, value in facts.items() if name != "checksum"}
        with pytest.raises(ValueError, match="checksum does not fit"):
            pdh.load(write(tmp_path / "run", tensors, without, seal=False))

    @pytest.mark.parametrize(
        ("place", "value", "message"),
        [
            ("seed", "3", "seed is '3', but must be a whole number of at least 0"),
            ("seed", -1, "seed is -1"),
            ("seed", 2**70, "seed is 1180591620717411303424"),
            ("seed", True, "seed is True"),
            ("layers", {"embed": 40_000_000}, "layers.embed is 40000000, but config.C is 6"),
            ("layers", {}, "layers is {}, but must name at least one"),
            ("layers", {"embed": "6"}, "layers is {'embed': '6'}"),
            ("layers", {"nowhere": 6}, "layers names 'nowhere', which the network does not have"),
            ("config.C", 7, "layers.embed is 6, but config.C is 7"),
            ("config.C", -1, "config: C must be a whole number of at least 1"),
            ("config.steps", 10**30, "config.steps is 1000000000000000000000000000000"),
            ("config.d_gate", 20_000_000, "importance.embed.w_in is float32 (6, 4), but must be float32 (6, 20000000)"),
            ("target_config.n_features", 300_000_000, "target.embed.weight is float32 (2, 5), but must be"),
            ("target_config", {"n_layers": 1_000_000}, "target_config: unknown field 'n_layers'"),
            ("target_kind", "mystery", "target_kind is 'mystery', which is not imported here"),
            ("method", "mystery", "method is 'mystery', which is not imported here"),
            ("device", "tpu", "device is 'tpu', but must be cpu, cuda or mps"),
            ("threads", 0, "threads is 0"),
            ("versions", [], "versions is []"),
            ("seconds", math.nan, "seconds is nan"),
            ("snapshot_steps", [5, 3], "snapshot_steps is [5, 3], but must be a list of rising whole numbers"),
            ("snapshot_steps", [0, 99], "snapshot_steps ends with 99, but config.steps is 12"),
            ("history", [], "history is [], but must be a mapping"),
            ("history.mmcs", "high", "history.mmcs is 'high', but must be a list of finite numbers"),
            ("history.mmcs", [math.nan], "history.mmcs is [nan]"),
            ("history.mmcs", [0.5], "history has columns of different lengths, 1 and"),
            ("history.step", [1.5], "history"),
            ("metrics", [1], "metrics is [1], but must be a mapping"),
            ("metrics.recon", math.nan, "metrics.recon is nan, but must be a finite number"),
            ("metrics.recon", "good", "metrics.recon is 'good'"),
            ("metrics.n_alive", {"embed": 77, "unembed": 0}, "metrics.n_alive.embed is 77, but there are 6 components"),
            ("metrics.l0", {"embed": 1.0}, "metrics.l0 must have one entry for each of embed, unembed"),
            ("metrics.faithfulness", 1.0, "metrics.faithfulness is 1.0, but the tensors give"),
            ("metrics.mmcs_alive", 1e300, "metrics.mmcs_alive is 1e+300, but must be a number from -1.001 to 1.001"),
            ("metrics.recon", {"a": 1}, "metrics.recon is {'a': 1}, but must be a number"),
            ("metrics", {"mine": 1.0}, "metrics.faithfulness is missing"),
            ("metrics.mmcs", 0.01, "metrics.mmcs is 0.01, but the tensors give"),
            ("metrics.ml2r", 9.0, "metrics.ml2r is 9.0, but the tensors give"),
            ("mystery", 1, "'mystery' is not a field of a stored run"),
        ],
    )
    def test_a_fact_that_cannot_be(self, finished, tmp_path, place, value, message):
        """Even where the checksums are right, as in a folder that somebody made on purpose."""
        tensors, facts = finished
        folder = write(tmp_path / "run", tensors, changed(facts, place, value))
        with pytest.raises(ValueError) as raised:  # noqa: PT011 (the message is compared below)
            pdh.load(folder)
        assert message in str(raised.value)
        assert str(folder) in str(raised.value)
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize("name", ["seed", "config", "metrics", "history", "layers", "method"])
    def test_a_fact_that_is_missing(self, finished, tmp_path, name):
        tensors, facts = finished
        folder = write(tmp_path / "run", tensors, {key: value for key, value in facts.items() if key != name})
        with pytest.raises(ValueError, match=f"run.json: {name} is missing"):
            pdh.load(folder)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('{"seed": ' + "9" * 1_000_000 + "}", "a number in it has too many digits"),
            ("[" * 200_000, "it is nested too deeply"),
            ('{"a":' * 200_000, "it is nested too deeply"),
            ("[1, 2]", "it holds a list, not a mapping"),
            ("", "it is not JSON"),
            (" " * (files.LARGEST_TEXT + 1), "bytes of JSON"),
        ],
        ids=["digits", "lists", "mappings", "list", "empty", "long"],
    )
    def test_a_text_that_is_no_facts(self, finished, tmp_path, text, reason):
        folder = write(tmp_path / "run", *finished)
        (folder / files.RUN).write_text(text)
        with pytest.raises(ValueError, match=f"run.json cannot be read .*{reason}") as raised:
            pdh.load(folder)
        assert len(str(raised.value)) < 500

    @pytest.mark.parametrize(
        ("name", "tensor", "message"),
        [
            (
                "U.embed",
                torch.zeros(6, 0, 10**8),
                "U.embed is float32 (6, 0, 100000000), but must be float32 (6, 2, 1)",
            ),
            ("U.embed", torch.full((6, 2, 1), math.nan), "U.embed holds numbers that are not finite"),
            ("V.embed", torch.full((6, 1, 5), math.inf), "V.embed holds numbers that are not finite"),
            ("target.embed.weight", torch.full((2, 5), math.nan), "target.embed.weight holds numbers that are not"),
            ("V.embed", torch.zeros(6, 1, 5, dtype=torch.int8), "V.embed is int8 (6, 1, 5), but must be float32"),
            ("V.embed", None, "V.embed is missing"),
            ("V.unembed", torch.zeros(1), "'V.unembed' is not a tensor of this run"),
            (
                "used.embed",
                torch.zeros(6, 1, dtype=torch.bool),
                "U.embed is float32 (6, 2, 1), but must be float32 (6, 2)",
            ),
        ],
    )
    def test_a_tensor_that_cannot_be(self, finished, tmp_path, name, tensor, message):
        tensors, facts = finished
        tensors = {key: value for key, value in tensors.items() if key != name}
        tensors |= {} if tensor is None else {name: tensor}
        with pytest.raises(ValueError) as raised:  # noqa: PT011
            pdh.load(write(tmp_path / "run", tensors, facts))
        assert message in str(raised.value)

    def test_a_file_of_another_length(self, finished, tmp_path):
        folder = write(tmp_path / "run", *finished)
        with (folder / files.TENSORS).open("r+b") as file:
            file.truncate(10**10)  # takes no room on the disk
        with pytest.raises(ValueError, match="it has 10000000000 bytes, but its header says"):
            pdh.load(folder)

    def test_metrics_that_cannot_be_stored_are_refused_by_save(self, finished, tmp_path):
        run = pdh.load(write(tmp_path / "run", *finished))
        run.metrics["note"] = "the best so far"
        with pytest.raises(ValueError, match="metrics.note is 'the best so far', but must be a finite number"):
            run.save(tmp_path / "again")
        assert not (tmp_path / "again").exists()


BOMBS = {
    "layers": {"layers": {"embed": 40_000_000}},
    "features": {"target_config": {"n_features": 300_000_000}},
    "layer count": {"target_kind": "residual_mlp", "target_config": {"n_layers": 1_000_000}},
    "gates": {"config": {"C": 6, "d_gate": 20_000_000}},
    "components": {"config": {"C": 40_000_000}, "layers": {"embed": 40_000_000}},
}


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_takes_little_memory(finished, tmp_path, bomb):
    """In a process whose memory is limited to 500 MB more than it has after the import."""
    tensors, facts = finished
    folder = write(tmp_path / "run", tensors, {**facts, **BOMBS[bomb]})
    program = f"""
import resource, sys, time
import pd_helpers as pdh
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 500_000_000, used + 500_000_000))
try:
    pdh.load({str(folder)!r})
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert str(folder) in done.stdout
    assert "llocate" not in done.stdout


class TestUnfinished:
    @pytest.fixture(autouse=True)
    def without_training(self, monkeypatch):
        monkeypatch.setattr(Run, "train_into", lambda run, *_, **__: run)

    @pytest.mark.parametrize("moment", ["exp_avg", "exp_avg_sq", "step"])
    @pytest.mark.parametrize("change", ["shape", "dtype", "missing"])
    def test_moments_are_compared_before_an_optimizer_has_them(self, unfinished, tmp_path, moment, change):
        tensors, facts = unfinished
        name = f"0.optimizer.0.{moment}"
        wrong = {"shape": torch.zeros(3), "dtype": tensors[name].to(torch.int8), "missing": None}[change]
        tensors = {key: value for key, value in tensors.items() if key != name}
        files.write_checkpoint(tmp_path, tensors | ({} if wrong is None else {name: wrong}), facts)
        with pytest.raises(ValueError, match=f"optimizer.0.{moment} is .*must"):
            pdh.resume(tmp_path)

    def test_moments_of_more_parameters_than_there_are(self, unfinished, tmp_path):
        tensors, facts = unfinished
        files.write_checkpoint(tmp_path, tensors | {"0.optimizer.99.exp_avg": torch.zeros(1)}, facts)
        with pytest.raises(ValueError, match="'optimizer.99.exp_avg' belongs to no parameter"):
            pdh.resume(tmp_path)

    @pytest.mark.parametrize(
        ("place", "value", "message"),
        [
            ("candidates.0.step", -50, "candidates[0].step is -50"),
            ("candidates.0.step", 13, "candidates[0].step ends with 13, but config.steps is 12"),
            ("candidates.0.score", "good", "candidates[0].score is 'good'"),
            ("candidates.0.seconds", "long", "candidates[0].seconds is 'long'"),
            ("candidates", [], "candidates is []"),
            ("candidates", [1], "candidates[0] is 1, but must be a mapping"),
            ("layers", {}, "layers is {}"),
            ("discarded_seconds", None, "discarded_seconds is None"),
            ("config.d_gate", 20_000_000, "0.importance.embed.w_in is float32 (6, 4), but must be"),
        ],
    )
    def test_a_fact_that_cannot_be(self, unfinished, tmp_path, place, value, message):
        tensors, facts = unfinished
        files.write_checkpoint(tmp_path, tensors, changed(facts, place, value))
        with pytest.raises(ValueError) as raised:  # noqa: PT011
            pdh.resume(tmp_path)
        assert message in str(raised.value)

    @pytest.mark.parametrize(
        ("name", "tensor"),
        [
            ("0.generator", torch.zeros(5056, dtype=torch.uint8)),
            ("0.generator", torch.zeros(8, dtype=torch.uint8)),
            ("0.optimizer.0.step", torch.tensor(float("inf"))),
            ("0.optimizer.0.step", torch.tensor(9.0)),
            ("0.lowest_loss", torch.zeros(2)),
            ("0.first_bad_step", torch.zeros(())),
            ("0.scores", torch.zeros(99)),
            ("0.mystery", torch.zeros(1)),
            ("mystery", torch.zeros(1)),
        ],
    )
    def test_a_tensor_that_cannot_be(self, unfinished, tmp_path, name, tensor):
        tensors, facts = unfinished
        if name == "0.first_bad_step":
            tensor = tensor.to(torch.int64)
        files.write_checkpoint(tmp_path, tensors | {name: tensor}, facts)
        with pytest.raises(ValueError, match=name.removeprefix("0.")):
            pdh.resume(tmp_path)


def test_a_network_of_your_own_stays_as_it_was_if_the_folder_is_refused(tmp_path):
    def data(batch_size, generator):
        return torch.randn(batch_size, 3, generator=generator)

    torch.manual_seed(0)
    run = pdh.fit(MLP(), pdh.SPDConfig(C=4, steps=5, batch_size=16), data, ["fc1"], show_progress=False)
    run.save(tmp_path / "run")
    tensors, facts = load_file(tmp_path / "run" / files.TENSORS), json.loads((tmp_path / "run" / files.RUN).read_text())
    folder = write(tmp_path / "run", tensors, changed(facts, "metrics.faithfulness", 99.0))
    torch.manual_seed(1)
    mine = MLP()
    before = {name: tensor.clone() for name, tensor in mine.state_dict().items()}
    with pytest.raises(ValueError, match="metrics.faithfulness is 99.0"):
        pdh.load(folder, target=mine)
    assert all(torch.equal(before[name], tensor) for name, tensor in mine.state_dict().items())
    with pytest.raises(ValueError, match=r"target.fc1.weight is float32 .* in it, but float64 .* in target="):
        pdh.load(folder, target=MLP().double())
    for wrong in ({}, MLP.forward, "network"):
        with pytest.raises(TypeError, match="target must be a network of the same architecture"):
            pdh.load(folder, target=wrong)


def test_every_shipped_run_has_checksums_and_agrees_with_itself():
    for entry in manifest()["runs"]:
        facts = json.loads((SHIPPED / entry["name"] / entry["variant"] / files.RUN).read_text())
        assert facts["format"] == files.FORMAT
        assert facts == files.sealed(facts)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
def test_an_optimizer_of_any_kind_continues_where_it_was(optimizer):
    """The parameters after ten steps are those of an optimiser that was stored and read after five."""
    options = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}

    def steps(parameter, trainer, n):
        for _ in range(n):
            trainer.zero_grad()
            (parameter**2).sum().backward()
            trainer.step()

    one = torch.nn.Parameter(torch.arange(6.0).view(2, 3))
    other = torch.nn.Parameter(one.detach().clone())
    first, second = (optimizer([p], lr=0.1, **options) for p in (one, other))
    steps(one, first, 10)
    steps(other, second, 5)
    third = optimizer([other], lr=0.1, **options)
    before = other.detach().clone()
    load_optimizer_state(third, {name: t.clone() for name, t in optimizer_state(second).items()}, 5)
    assert torch.equal(other, before)
    steps(other, third, 5)
    assert torch.equal(one, other)
