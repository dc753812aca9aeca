"""The command that measures what notebooks cost: the cores it lends them, the memory it sees, and what it fails on."""

import json
import os
import time
from pathlib import Path

import budget
import build
import ipywidgets
import pytest

from pd_helpers.course.kit.lab import Lab

NAME = "01_example"
SOURCE = """\
# %% [markdown]
# # Example, {{minutes}}

# %%
import os
import subprocess
import sys

with open("where.txt", "a") as file:
    print(len(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"], file=file)

# %%
block = b"x" * 200_000_000
_ = subprocess.run([sys.executable, "-c", "import time; block = b'x' * 100_000_000; time.sleep(2)"], check=True)
"""


@pytest.fixture
def course(tmp_path) -> Path:
    folder = tmp_path / "notebooks"
    (folder / "source").mkdir(parents=True)
    (folder / "source" / f"{NAME}.py").write_text(SOURCE)
    (tmp_path / "README.md").write_text("# Course\n\n<!-- budget -->\nold\n<!-- /budget -->\n\nThe end.\n")
    return folder


@pytest.mark.slow
def test_a_notebook_within_budget(course, capsys):
    before = os.sched_getaffinity(0)
    assert budget.main([NAME, "--cores", "1"], course) == 0
    assert (course / "where.txt").read_text() == "1 1\n"  # the kernel's cores and threads
    assert os.sched_getaffinity(0) == before
    cost = budget.read(course)[NAME]["1"]
    assert cost["seconds"] > 2  # its child sleeps as long
    assert 300 < cost["megabytes"] < 600  # both blocks at once, and two interpreters
    assert "milliseconds" not in cost  # no lab, no slider
    row = f"| [{NAME}](notebooks/{NAME}.ipynb) | – | {cost['seconds']:.0f} s | {cost['megabytes']} MB | – |"
    assert capsys.readouterr().out.splitlines()[-1] == row
    text = (course.parent / "README.md").read_text()
    assert row in text
    assert "old" not in text
    assert text.endswith("The end.\n")


class Slow(Lab):
    def __init__(self, seconds):
        self.slider = ipywidgets.IntSlider(max=5)
        super().__init__([ipywidgets.VBox([self.slider])], 2, 2)
        self.on_move([self.slider], lambda: time.sleep(seconds))


class Live(Slow):
    is_live = True

    def __init__(self):
        super().__init__(0)
        self.on_move([self.slider], lambda: pytest.fail("a lab that trains was moved"))


def test_the_slowest_slider_of_the_labs_that_train_nothing():
    labs = Slow(0.0), Slow(0.06), Live()
    cost = budget.slowest_move()
    assert cost["milliseconds"] >= 60
    assert cost["seconds"] >= 6 * 0.06
    assert [lab.slider.value for lab in labs] == [5, 5, 0]


@pytest.mark.parametrize(("limit", "value"), [("SECONDS", {1: 1, 2: 1}), ("MEGABYTES", 250), ("MILLISECONDS", 100)])
def test_over_budget(course, capsys, monkeypatch, limit, value):
    monkeypatch.setattr(budget, "measure", lambda *_: {"seconds": 2.5, "megabytes": 300, "milliseconds": 120})
    assert budget.main([NAME], course) == 0
    monkeypatch.setattr(budget, limit, value)
    assert budget.main([NAME, "--cores", "2"], course) == 1
    said = capsys.readouterr().err
    found = {"SECONDS": "2.5 seconds", "MEGABYTES": "300 megabytes", "MILLISECONDS": "120 milliseconds"}[limit]
    assert f"{NAME}: {found} on 2 cores, and the budget is" in said


@pytest.mark.slow
def test_the_headers_follow_what_two_cores_took(course, monkeypatch):
    build.build(NAME, course)
    monkeypatch.setattr(budget, "measure", lambda name, cores, _: {"seconds": 190.0 / cores, "megabytes": 1})
    assert budget.main([], course) == 0
    assert build.read_seconds(course) == {NAME: 95.0}
    assert build.read(NAME, course).cells[0].source == "# Example, about 2 minutes"


@pytest.mark.slow
def test_a_notebook_that_fails_is_a_problem_and_not_a_measurement(course, capsys):
    (course / "source" / f"{NAME}.py").write_text("# %%\n1 / 0\n")
    assert budget.main(["--cores", "1"], course) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert budget.read(course) == {}


def test_the_table_alone_runs_nothing(course, capsys):
    (course / "budget.json").write_text(json.dumps({NAME: {"2": {"seconds": 61.2, "megabytes": 812}}}))
    assert budget.main(["--table"], course) == 0
    assert f"| [{NAME}](notebooks/{NAME}.ipynb) | 61 s | – | 812 MB | – |" in capsys.readouterr().out


def test_what_is_committed_is_within_budget():
    for name, cost in budget.read().items():
        for cores, measured in cost.items():
            assert budget.over(name, int(cores), measured) == []
