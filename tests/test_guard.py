"""Kernels of the tests refuse the network and writing elsewhere, and let pass what a notebook may do."""

from pathlib import Path

import nbclient
import pytest
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.slow


def run(code: str, folder: Path) -> str:
    """Run one cell in this folder; what it printed."""
    notebook = new_notebook(cells=[new_code_cell(code)])
    place = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, kernel_name="python3", resources=place).execute(cleanup_kc=True)
    return "".join(output.get("text", "") for output in notebook.cells[0].outputs)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=1)", "must not need the network"),
        ("import urllib.request\nurllib.request.urlopen('http://example.invalid')", "must not need the network"),
        ("open('../beside.txt', 'w')", "must not write outside its folder"),
        ("from pathlib import Path\n(Path.home() / 'mine').mkdir()", "must not write outside its folder"),
        ("from pathlib import Path\nPath('here.txt').write_text('a')\nPath('here.txt').rename('../gone')", "must not"),
    ],
)
def test_a_notebook_that_leaves_its_folder_fails(tmp_path, monkeypatch, code, error):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))  # pytest's folders are temporary ones themselves
    for name in ("temporary", "notebooks"):
        (tmp_path / name).mkdir()
    with pytest.raises(nbclient.exceptions.CellExecutionError, match=error):
        run(code, tmp_path / "notebooks")


def test_a_notebook_may_write_beside_itself_and_read_everywhere(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    code = (
        "import os, tempfile\nfrom pathlib import Path\nPath('runs').mkdir()\nPath('runs/a').write_text('b')\n"
        "tempfile.TemporaryFile()\nprint(len(Path(os.__file__).read_text()) > 100)"
    )
    assert run(code, tmp_path) == "True\n"
    assert (tmp_path / "runs" / "a").read_text() == "b"
