"""What every lab is made of: a picture of fixed size, its numbers, and work that can be cancelled."""

import asyncio
import html
import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import ipywidgets as w
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.image import imsave

from pd_helpers import plots

SETTLE = 0.15
"""Seconds a slider must rest before training starts: a drag passes through many values."""
SLICE = 0.03
"""Seconds of training between two looks at what the reader does."""
REDRAW = 0.6
"""Seconds between two pictures while training."""
ROW = 32
"""Pixels that one control takes in height."""
STYLE = {"description_width": "15em"}
WIDE = w.Layout(width="34em", max_width="100%")


class Lab:
    """A column of controls, a picture, and a line of numbers; subclasses draw the picture and do the work.

    Attributes: figure (what is shown), alt (its description), widget (all of it, for display).
    """

    def __init__(self, controls: list[w.Widget], width: float, height: float, rows: int = 1, columns: int = 1):
        self.figure, self.axes = plots.figure(width, height, rows, columns)
        self.figure.set_facecolor("white")
        self.alt = ""
        self._image = w.Image(
            format="png",
            layout=w.Layout(width=f"{width * plots.DPI:.0f}px", max_width="100%", height="auto", object_fit="contain"),
        )
        self._image.add_class("pdh-picture")
        self._numbers = w.HTML(layout=w.Layout(min_height="2.2em"))
        self._numbers.add_class("pdh-readout")
        self._caption = w.HTML()
        self._task: asyncio.Task | None = None
        self._thread, self._loop = threading.get_ident(), _running_loop()
        self.widget = w.VBox([*controls, self._numbers, self._image, self._caption])

    @property
    def is_live(self) -> bool:
        """Whether a moved slider trains; otherwise it looks up or computes its answer at once."""
        return hasattr(self, "progress")

    def refresh(self, readout: str, alt: str) -> None:
        """Show the figure as it now is, with its numbers and its description."""
        self.alt = alt
        self.figure.canvas.draw()  # once, where savefig draws twice
        buffer = io.BytesIO()
        imsave(buffer, self.figure.canvas.buffer_rgba(), format="png", dpi=plots.DPI, pil_kwargs={"compress_level": 3})
        self._image.value = buffer.getvalue()
        self.figure.set_layout_engine("none")  # from the first picture on nothing moves, and drawing is quicker
        self._numbers.value = readout
        self._caption.value = plots.caption(alt)

    def on_move(self, controls: Iterable[w.Widget], act: Callable[[], object]) -> None:
        """Call `act()` whenever one of the controls gets a new value."""
        for control in controls:
            control.observe(lambda _: self.here(act), "value")

    def here(self, act: Callable[[], object]) -> None:
        """Call `act()` on the thread that made the lab, when that has time, and wait until it is done.

        JupyterLab tells of moved sliders and pressed buttons on another thread than that of the cells (a "subshell"),
        and not of all on the same one; but one network must not be run, nor one figure drawn, by two threads at a time.
        """

        async def turn() -> None:
            act()

        if self._loop is None or not self._loop.is_running() or threading.get_ident() == self._thread:
            act()
        else:
            asyncio.run_coroutine_threadsafe(turn(), self._loop).result()

    def give_up(self) -> None:
        """Stop training; the picture stays as it was drawn last, until a slider moves."""

        def stop() -> None:
            if self._task is not None and self._task.cancel():
                self.progress.show("stopped", "warning")

        self.here(stop)

    def replace_task(self, work: Callable) -> None:
        """Cancel what is running and start `work()`, a coroutine; where no event loop runs, work to the end now."""
        if self._task is not None:
            self._task.cancel()
        if _running_loop() is None:
            asyncio.run(self._try(work))
        else:
            self._task = asyncio.create_task(self._try(work))

    async def _try(self, work: Callable) -> None:
        try:
            await work()
        except Exception as error:
            self.progress.show("failed", "danger")
            self._numbers.value = html.escape(f"{type(error).__name__}: {error}")
            raise

    async def follow(self, steps: Iterator[int], total: int, draw: Callable[[], None]) -> None:
        """Take all of `steps` under the progress bar, drawing now and then, and giving way to the front end."""
        self.progress.show("training", "info", 0, total)
        looked = drawn = time.perf_counter()
        for done, _ in enumerate(steps):
            if time.perf_counter() - looked < SLICE:
                continue
            self.progress.bar.value = done
            if time.perf_counter() - drawn > REDRAW:
                draw()
                drawn = time.perf_counter()
            await asyncio.sleep(0.001)
            looked = time.perf_counter()
        self.progress.show("trained", "success", total, total)
        draw()

    def _ipython_display_(self) -> None:
        data, metadata = plots.bundle(self.figure, self.alt)
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        display({"application/vnd.jupyter.widget-view+json": view, **data}, raw=True, metadata=metadata)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def wipe(ax: Axes) -> None:
    """Remove all that was drawn, but not the axes themselves: making ticks anew takes a quarter of a move's time."""
    for container in list(ax.containers):
        container.remove()  # with its patches
    if ax.get_legend():
        ax.get_legend().remove()
    for artist in [*ax.lines, *ax.patches, *ax.collections, *ax.images, *ax.texts]:
        artist.remove()
    ax.relim()
    ax.autoscale(True)
    ax.set_prop_cycle(None)


def slider(description: str, value: float, low: float, high: float, step: float, digits: int) -> w.FloatSlider:
    return w.FloatSlider(
        description=description,
        value=value,
        min=low,
        max=high,
        step=step,
        readout_format=f".{digits}f",
        style=STYLE,
        layout=WIDE,
    )


def choice(description: str, options: Sequence[float], value: float) -> w.SelectionSlider:
    return w.SelectionSlider(description=description, options=options, value=value, style=STYLE, layout=WIDE)


def whole(description: str, value: int, high: int) -> w.IntSlider:
    return w.IntSlider(description=description, value=value, min=0, max=high, style=STYLE, layout=WIDE)


class Progress(w.HBox):
    """How far training is, and a button that gives it up."""

    def __init__(self, give_up: Callable[[], None]):
        self.bar = w.IntProgress(value=1, max=1, style=STYLE, layout=WIDE)
        self.bar.add_class("pdh-progress")
        self.stop = w.Button(description="stop", tooltip="give up this training", layout=w.Layout(width="auto"))
        self.stop.on_click(lambda _: give_up())
        super().__init__([self.bar, self.stop])
        self.show("trained", "success", 1, 1)

    def show(self, what: str, style: str, done: int | None = None, total: int | None = None) -> None:
        """Say what is going on, in words and colour, and how much of it is done."""
        self.bar.description, self.bar.bar_style, self.stop.disabled = what, style, what != "training"
        if total is not None:
            self.bar.max, self.bar.value = total, done
