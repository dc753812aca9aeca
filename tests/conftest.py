"""What every test runs under, and fixtures that several files share; those that need a browser are in browser.py."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# Each of several workers computes on one thread: two threads each would wait for the others' cores. Without workers,
# two threads, as on the smallest machine the course is written for. Set before torch is imported; kernels and command
# lines started by tests inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Kernels import guard/sitecustomize.py: no network, no writing elsewhere.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).with_name("guard")), os.environ.get("PYTHONPATH")])
)

import jaxtyping
import matplotlib
import pytest
import torch

# Only this process: an environment variable would reach the notebooks' kernels and hide their figures.
matplotlib.use("Agg")

# Shapes in the package's signatures are checked on every call the tests make.
jaxtyping.install_import_hook("pd_helpers", "typechecker.check")

from browser import browser_executable, chromium, jupyter, jupyter_server  # noqa: E402, F401 (fixtures)

collect_ignore = [] if torch.cuda.is_available() else ["test_gpu.py"]

MINUTES = Path(__file__).parents[1] / "notebooks" / "minutes.json"
UNMEASURED = 60
"""Seconds that a notebook is thought to take before it is measured."""
IN_A_BROWSER = 40
"""Seconds that a test in a browser takes, more or less."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow by its kind, and let the longest files begin first, so that no worker is left with one alone.

    Slow are notebooks, pages in a browser and labs; other slow tests carry the mark themselves. A worker takes whole
    files, so what counts is how long all tests of a file take together.
    """
    measured = json.loads(MINUTES.read_text())

    def seconds(item: pytest.Item) -> float:
        if item.path.suffix == ".ipynb":
            return measured.get(item.path.stem, UNMEASURED)
        return IN_A_BROWSER if "jupyter" in getattr(item, "fixturenames", ()) else 0

    of_files: Counter[Path] = Counter()
    for item in items:
        if seconds(item) or item.path.name.startswith("test_widgets"):
            item.add_marker(pytest.mark.slow)
        of_files[item.path] += seconds(item)
    items.sort(key=lambda item: -of_files[item.path])  # keeps the order within a file


@pytest.fixture
def as_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switches off the tests' own type checks, which would speak before the package's messages do."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: with two, many small operations crawl while anything else keeps the other core busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def quick_evaluation() -> Iterator[None]:
    """A thousand inputs to measure a finished run, for tests that ask what a run holds and not how good it is."""
    from pd_helpers.runs import evaluation

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "N_EVALUATION", 1024)
        yield
