"""The plan holds: arrows point downward, no room is too large, and the core needs nothing else of ours."""

import shutil
import subprocess
import sys
from importlib import import_module

import pytest
from house import FLOORS, PACKAGE, arrows, circles, floor, imported, modules

from pd_helpers import plots

TOPICS = [
    path.name for path in (PACKAGE / "course").iterdir() if path.is_dir() and path.name not in ("kit", "__pycache__")
]


def test_the_arrows_are_seen(tmp_path):
    """The reader of imports finds each way to write one."""
    assert "core.losses" in imported(PACKAGE / "core" / "apd.py")  # from . import losses
    assert "core.shortcuts.empty_rows" in imported(PACKAGE / "core" / "apd.py")  # from .shortcuts.empty_rows import
    assert "core.method" in imported(PACKAGE / "runs" / "run.py")  # from pd_helpers.core.method import
    assert ("runs.evaluation", "analysis.metrics") in arrows()  # from pd_helpers.analysis import metrics


def test_no_arrow_points_upward():
    assert [f"{a} imports {b}" for a, b in sorted(arrows()) if floor(b) > floor(a)] == []


def test_there_are_no_circles():
    assert circles() == []


def test_no_room_of_a_topic_imports_another_topic():
    def topic(name):
        return name.split(".")[1] if name.startswith("course.") and name.count(".") > 1 else None

    crossing = [(a, b) for a, b in arrows() if topic(a) and topic(b) not in (topic(a), "kit", None)]
    assert [f"{a} imports {b}" for a, b in crossing] == []


def test_no_room_is_too_large_but_data():
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules().items() if name != "runs.presets"}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_the_top_level_is_small():
    rooms = {path.name for path in PACKAGE.iterdir() if not path.name.startswith("__") or path.suffix == ".py"}
    assert len(rooms) <= 12
    assert set(FLOORS) <= rooms


def test_the_equations_of_three_papers_are_about_two_thousand_lines():
    paths = [p for p in (PACKAGE / "core").rglob("*.py") if not {"shortcuts", "networks", "machine"} & set(p.parts)]
    code = [line for path in paths for line in path.read_text().splitlines() if line.strip()]
    assert len(code) < 2300


@pytest.mark.parametrize("topic", TOPICS)
def test_a_room_is_named_after_its_notebook(topic):
    sources = (PACKAGE.parent / "notebooks" / "source").glob("*.py")
    assert topic in {path.stem.split("_", 1)[1] for path in sources}


def test_a_picture_of_one_topic_is_said_to_be_in_its_room():
    for topic, names in plots.ROOMS.items():
        room = import_module(f"pd_helpers.course.{topic}.plots")
        for name in names:
            assert hasattr(room, name)
            with pytest.raises(AttributeError, match=f"from pd_helpers.course.{topic}.plots import {name}"):
                getattr(plots, name)


VENDORED = """
import sys
sys.modules["pd_helpers"] = None  # cannot be imported

import torch
from vendored.apd import APD, APDConfig
from vendored.components import decompose
from vendored.spd import SPD, SPDConfig

network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
for method, config in ((APD, APDConfig(C=3, steps=2)), (SPD, SPDConfig(C=3, steps=2))):
    model = decompose(network, {"0": 3, "2": 3}, rank=1)
    training = method(model, config, init=torch.Generator(), draw=torch.Generator())
    losses = list(training.train(lambda n, generator: torch.rand(n, 3, generator=generator)))
    assert len(losses) == 2
    print(method.name, *losses[0]._fields)
"""


def test_the_core_can_be_vendored(tmp_path):
    """Copied under another name, without the rest of the package, it decomposes a network."""
    shutil.copytree(PACKAGE / "core", tmp_path / "vendored", ignore=shutil.ignore_patterns("__pycache__"))
    result = subprocess.run([sys.executable, "-c", VENDORED], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "apd faithfulness minimality simplicity hidden",
        "spd faithfulness recon recon_layerwise importance_minimality",
    ]
