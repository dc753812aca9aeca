"""Drive the course in a real JupyterLab, in headless Chromium, as a reader would: run all, move a slider.

A test asks for the fixture `jupyter` and gets a fresh page:

    def test_the_picture_follows_the_slider(jupyter):
        jupyter.open("02_superposition")
        jupyter.run_all()
        picture = jupyter.image(".lab-figure img")
        jupyter.slider("sparsity").press("End")
        jupyter.eventually(lambda: jupyter.image(".lab-figure img") != picture, "the picture changes")
        assert jupyter.errors() == []

The notebooks are served from a copy, so tests may write where they like. To look at a page by eye, and to take every
slider of its labs to both ends, with a picture of each lab before and after:

    python tests/browser.py notebooks/02_superposition.ipynb page.png
    python tests/browser.py notebooks/02_superposition.ipynb page.png --drive
"""

import argparse
import base64
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
TRAINING = 900  # seconds that a lab may train: far more than it takes, since a machine may be slow and busy
TALLEST = 16_000  # pixels of notebook in one picture; Chromium draws no window taller than 16384

# No telephoning home, and every cell in the page at once: by default JupyterLab leaves out those out of view.
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none"}',
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "docmanager-extension/plugin": '{"autosave": false}',
}


# --- The server -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: its address, its token, the folder it serves and the file it logs to."""

    url: str
    token: str
    folder: Path
    log: Path

    def request(self, path: str, method: str = "GET") -> bytes:
        """Ask the server's own interface, such as `api/sessions`."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read()


@contextmanager
def serve(folder: Path, timeout: float = 60) -> Iterator[Server]:
    """JupyterLab over a copy of a folder, untouched by the settings of whoever runs the tests."""
    with tempfile.TemporaryDirectory(prefix="jupyter-", ignore_cleanup_errors=True) as temporary:
        home = Path(temporary)
        copy = home / "notebooks"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__"))
        for name, text in SETTINGS.items():
            path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        places = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = Server(f"http://127.0.0.1:{port}", secrets.token_hex(16), copy, home / "server.log")
        options = (
            "--no-browser",
            "--allow-root",
            "--expose-app-in-browser",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={copy}",
            f"--IdentityProvider.token={server.token}",
            "--LabApp.extension_manager=readonly",
        )
        with server.log.open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *options],
                env=os.environ | {name: str(home / place) for name, place in places.items()},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _wait_until_up(server, process, timeout)
            yield server
        finally:
            _end(process)


def _wait_until_up(server: Server, process: subprocess.Popen, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            server.request("api/status")
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"JupyterLab did not start:\n{server.log.read_text()}") from error
            time.sleep(0.1)


def _end(process: subprocess.Popen) -> None:
    """End the server and the kernels it started: politely, then for certain."""
    for request in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, request)
            process.wait(timeout=10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


# --- The page ---------------------------------------------------------------------------------------------

# What a page keeps about its notebook. Callbacks of widgets run outside any cell, so that what they raise or
# warn is shown nowhere in the page; it is heard here, from the kernel itself.
# Of what the page has told the kernel, what waits for an answer is kept too: a lab is at rest when nothing does.
LISTEN = """() => {
    const panel = window.jupyterapp.shell.currentWidget;
    window.heard = [];
    window.unanswered = new Set();
    panel.sessionContext.session.kernel.anyMessage.connect((_, {msg, direction}) => {
        if (direction === 'send' && msg.header.msg_type === 'comm_msg') window.unanswered.add(msg.header.msg_id);
        if (msg.header.msg_type === 'status' && msg.content.execution_state === 'idle')
            window.unanswered.delete(msg.parent_header.msg_id);
    });
    panel.sessionContext.iopubMessage.connect((_, message) => {
        const {msg_type} = message.header, {content} = message;
        const of_cell = message.parent_header.msg_type === 'execute_request';
        if (msg_type === 'error' && !of_cell) window.heard.push(content.ename + ': ' + content.evalue);
        if (msg_type === 'stream' && content.name === 'stderr') window.heard.push(content.text);
    });
}"""
KERNEL_IS = """status => {
    const panel = window.jupyterapp?.shell?.currentWidget;
    return panel?.sessionContext?.session?.kernel?.status === status;
}"""
RUN_ALL = """() => {
    window.finished = false;
    window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.finished = true; });
}"""
CELLS = "() => window.jupyterapp.shell.currentWidget.model.toJSON().cells"
BYTES = """async image => {
    const blob = await (await fetch(image.src)).blob();
    const reader = new FileReader();
    await new Promise(done => { reader.onload = done; reader.readAsDataURL(blob); });
    return reader.result.split(',')[1];
}"""


class Slider:
    """A core ipywidgets slider, of version 7 or 8, moved by keyboard as a reader without a mouse would."""

    def __init__(self, row: Locator):
        self.row = row
        self.handle = row.locator(".noUi-handle, .ui-slider-handle").first

    @property
    def readout(self) -> str:
        """The text beside the slider."""
        return self.row.locator(".widget-readout").inner_text().strip()

    @property
    def value(self) -> float:
        """The readout as a number."""
        return float(self.readout.replace("\N{MINUS SIGN}", "-"))

    @property
    def name(self) -> str:
        """The text before the slider."""
        return self.row.locator(".widget-label").first.inner_text().strip()

    def press(self, key: str, times: int = 1) -> "Slider":
        """Press a key on the handle: ArrowRight, ArrowLeft, Home or End."""
        self.handle.focus()
        for _ in range(times):
            self.handle.press(key)
        return self


class LabOnPage:
    """A lab as the page shows it: sliders, a picture, perhaps a progress bar."""

    def __init__(self, jupyter: "JupyterPage", box: Locator):
        self.jupyter, self.box = jupyter, box

    @property
    def sliders(self) -> list[Slider]:
        """All that can be moved."""
        return [Slider(row) for row in self.box.locator(".widget-slider").all()]

    def picture(self) -> bytes:
        """The picture's file."""
        return base64.b64decode(self.box.locator("img.pdh-picture").first.evaluate(BYTES))

    def settled(self, timeout: float) -> bytes:
        """The picture, once the kernel has answered, nothing trains and half a second has changed nothing."""
        bar = self.box.locator(".pdh-progress .widget-label")
        deadline, last, since = time.monotonic() + timeout, b"", time.monotonic()
        while time.monotonic() < deadline:
            picture, now = self.picture(), time.monotonic()
            unanswered = self.jupyter.page.evaluate("() => window.unanswered.size")
            if unanswered or picture != last or any(label.inner_text().strip() != "trained" for label in bar.all()):
                last, since = picture, now
            if now - since > 0.5:
                return picture
            self.jupyter.page.wait_for_timeout(50)
        raise AssertionError(f"within {timeout:g} s the lab did not come to rest")

    def drive(self, timeout: float = TRAINING) -> None:
        """Each slider to both ends, where the pictures differ, and in a rush back: the last value must win."""
        for slider in self.sliders:
            readouts, pictures = [], []
            for key in ("Home", "End"):
                slider.press(key)
                pictures.append(self.settled(timeout))
                readouts.append(slider.readout)
            assert readouts[0] != readouts[1], f"slider {slider.name!r} does not move: {readouts}"
            assert pictures[0] != pictures[1], f"slider {slider.name!r}: the same picture at {' and '.join(readouts)}"
            slider.press("ArrowLeft", times=10).press("Home").press("ArrowRight", times=3).press("End")
            assert self.settled(timeout) == pictures[1], f"slider {slider.name!r}: the last value did not win"


class JupyterPage:
    """One browser tab with JupyterLab in it; `page` is Playwright's, for what is not wrapped here."""

    def __init__(self, page: Page, server: Server):
        self.page, self.server = page, server

    def open(self, notebook: str, timeout: float = 60) -> "JupyterPage":
        """Open a notebook of the served folder by name and wait until its kernel is ready."""
        name = notebook.removesuffix(".ipynb")
        if not (self.server.folder / f"{name}.ipynb").exists():
            served = ", ".join(sorted(path.stem for path in self.server.folder.glob("*.ipynb")))
            raise FileNotFoundError(f"no notebook {name!r} is served; there are: {served or 'none'}")
        self.page.goto(f"{self.server.url}/lab/tree/{name}.ipynb?reset&token={self.server.token}")
        self._wait_for(KERNEL_IS, timeout, f"a kernel for {name}", "idle")
        self.page.evaluate(LISTEN)
        return self

    def run_all(self, timeout: float = 300) -> "JupyterPage":
        """Run > Run All Cells, and wait until the last has finished or one has failed: see `errors`."""
        self.page.evaluate(RUN_ALL)
        self._wait_for("() => window.finished", timeout, "all cells to finish")
        return self.wait_idle(timeout)

    def wait_idle(self, timeout: float = 60) -> "JupyterPage":
        """Wait until the kernel has answered everything; training started in the background may go on."""
        self._wait_for(KERNEL_IS, timeout, "the kernel to be idle", "idle")
        return self

    def eventually(self, holds: Callable[[], object], what: str, timeout: float = 30) -> None:
        """Wait until a condition holds; `what` completes 'it did not happen that ...'."""
        deadline = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > deadline:
                heard = "".join(f"\n  {error}" for error in self.errors())
                raise AssertionError(f"within {timeout:g} s it did not happen that {what}{heard}")
            self.page.wait_for_timeout(50)

    def cells(self) -> list[dict]:
        """The notebook as it stands in the page, as nbformat's cells."""
        return self.page.evaluate(CELLS)

    def errors(self) -> list[str]:
        """What went wrong since the notebook was opened: in cells, in widgets' callbacks, on stderr.

        Progress bars, which return to the start of their line, are no errors; nor is it one that JupyterLab
        asks a new kernel for its widgets before any cell has imported them.
        """
        in_cells = [
            f"cell {number}: {output['ename']}: {output['evalue']}"
            for number, cell in enumerate(self.cells(), 1)
            for output in cell.get("outputs", ())
            if output["output_type"] == "error"
        ]
        heard = self.page.evaluate("() => window.heard")
        harmless = re.compile(r"\s*$|No such comm|(?s:.*)\r")
        return in_cells + [text.strip() for text in heard if not harmless.match(text)]

    def slider(self, label: str) -> Slider:
        """The first slider with exactly this description, as the page shows it."""
        described = self.page.locator(".widget-slider").filter(has=self.page.get_by_text(label, exact=True))
        return Slider(described.first)

    @property
    def labs(self) -> list[LabOnPage]:
        """The labs of the page, from top to bottom."""
        boxes = self.page.locator(".widget-vbox").filter(has=self.page.locator("> img.pdh-picture"))
        return [LabOnPage(self, box) for box in boxes.all()]

    def drive(self) -> None:
        """Every slider of every lab to both ends and in a rush back, as `LabOnPage.drive` says."""
        for lab in self.labs:
            lab.drive()

    def text(self, css: str) -> str:
        """The visible text of the first element that matches."""
        return self.page.locator(css).first.inner_text().strip()

    def image(self, css: str) -> bytes:
        """The file behind the first matching `<img>`: equal bytes are an equal picture."""
        return base64.b64decode(self.page.locator(css).first.evaluate(BYTES))

    def screenshot(self, path: str | Path) -> list[Path]:
        """Write the whole notebook as a PNG; what is too tall for one goes on in NAME-2.png and so on."""
        path, window = Path(path), self.page.viewport_size
        if self.page.locator("#jp-left-stack").is_visible():
            self.page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
        scroller = self.page.locator(".jp-Notebook .jp-WindowedPanel-outer").first
        height = scroller.evaluate("e => e.scrollHeight")
        step = min(height, TALLEST)
        self.page.set_viewport_size({"width": window["width"], "height": step + 200})
        pictures = []
        for number, top in enumerate(range(0, height, step), 1):
            scroller.evaluate("(e, top) => { e.scrollTop = top; }", top)
            self.page.wait_for_timeout(300)
            pictures.append(path if number == 1 else path.with_stem(f"{path.stem}-{number}"))
            scroller.screenshot(path=pictures[-1])
        self.page.set_viewport_size(window)
        return pictures

    def _wait_for(self, condition: str, timeout: float, what: str, argument: object = None) -> None:
        try:
            self.page.wait_for_function(condition, arg=argument, timeout=1000 * timeout)
        except PlaywrightTimeout:
            raise AssertionError(f"waited {timeout:g} s for {what}, in vain") from None


def serve_cells(jupyter: JupyterPage, name: str, *cells: str) -> JupyterPage:
    """Add a small notebook to the served copy, open it and run it."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=kernel)
    nbformat.write(notebook, jupyter.server.folder / f"{name}.ipynb")
    return jupyter.open(name).run_all()


@contextmanager
def jupyter_page(browser: Browser, server: Server) -> Iterator[JupyterPage]:
    """A tab of its own; when it closes, its kernel ends too, since two cores serve every test."""
    with browser.new_context(viewport={"width": 1280, "height": 1000}) as context:
        yield JupyterPage(context.new_page(), server)
    for session in json.loads(server.request("api/sessions")):
        server.request(f"api/sessions/{session['id']}", method="DELETE")


# --- Chromium ---------------------------------------------------------------------------------------------


def find_browser() -> str | None:
    """The first installed browser of Chromium's family."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def launch(executable: str) -> Iterator[Browser]:
    """Headless Chromium, which asks nothing of the network and works as root in a container."""
    quiet = (
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
    )
    contained = "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*quiet, *contained])
        try:
            yield browser
        finally:
            browser.close()


# --- Fixtures ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def browser_executable() -> str:
    """An installed browser; without one the tests that need it are skipped, or fail if REQUIRE_BROWSER=1."""
    executable = find_browser()
    if executable is None:
        reason = f"no browser found: install one of {', '.join(BROWSERS)} to run the tests in JupyterLab"
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip)(reason)
    return executable


@pytest.fixture(scope="session")
def jupyter_server(browser_executable: str) -> Iterator[Server]:
    """One JupyterLab for the whole run."""
    with serve(NOTEBOOKS) as server:
        yield server


@pytest.fixture(scope="module")
def chromium(browser_executable: str) -> Iterator[Browser]:
    """One browser per file of tests: its event loop must be gone when notebooks are executed without it."""
    with launch(browser_executable) as browser:
        yield browser


@pytest.fixture
def jupyter(chromium: Browser, jupyter_server: Server) -> Iterator[JupyterPage]:
    """A fresh tab."""
    with jupyter_page(chromium, jupyter_server) as page:
        yield page


def main() -> int:
    """Open a notebook, run all of it, write what it looks like; exit code 1 if anything went wrong in it."""
    parser = argparse.ArgumentParser(description="Run a notebook in JupyterLab and write a picture of it.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--drive", action="store_true", help="move every slider, with pictures before and after")
    options = parser.parse_args()
    executable = find_browser() or sys.exit(f"install one of {', '.join(BROWSERS)}")
    with (
        serve(options.notebook.parent) as server,
        launch(executable) as browser,
        jupyter_page(browser, server) as page,
    ):
        page.open(options.notebook.name).run_all()
        print(*page.screenshot(options.picture), sep="\n")
        for number, lab in enumerate(page.labs if options.drive else ()):
            for name, act in (("before", lambda: None), ("after", lab.drive)):
                act()
                lab.box.screenshot(path=(path := options.picture.with_stem(f"{options.picture.stem}_{number}_{name}")))
                print(path, *(f"{slider.name}: {slider.readout}" for slider in lab.sliders), sep="  ")
        for error in (errors := page.errors()):
            print(error, file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
