"""What every test runs under; the fixtures that need a browser are in browser.py."""

import os
from pathlib import Path

# Two threads, as on the smallest machine the course is written for. Set before torch is imported, so that
# tests that do not need torch do not load it; kernels and command lines started by tests inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Kernels import guard/sitecustomize.py: no network, no writing elsewhere.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).with_name("guard")), os.environ.get("PYTHONPATH")])
)

import matplotlib
import pytest
from jaxtyping import install_import_hook

# Only this process: an environment variable would reach the notebooks' kernels and hide their figures.
matplotlib.use("Agg")

# Shapes in the package's signatures are checked on every call the tests make.
install_import_hook("pd_helpers", "typechecker.check")

from browser import browser_executable, chromium, jupyter, jupyter_server  # noqa: E402, F401 (fixtures)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is slow by its kind: notebooks, pages in a browser, labs. Others carry the mark themselves."""
    for item in items:
        of_a_lab = item.path.name.startswith("test_widgets")
        if item.path.suffix == ".ipynb" or of_a_lab or "jupyter" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
