"""What every lab is made of: controls, a line of numbers, a picture of fixed size, and training that can be cancelled.

    compute()           the values that the controls' present setting gives
    draw(values)        moves or redraws the picture
    describe(values)    the line of numbers and the alt text

A subclass defines these three, and `Lab.update` calls them in turn whenever a control moves. `Lab.values` are the
values that are shown, so a test or a curious reader never has to parse the numbers out of the page. A `LiveLab` also
defines `retrain`, and updates its picture while it trains.
"""

import asyncio
import html
import io
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import ipywidgets as w
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.image import AxesImage, imsave

from pd_helpers import plots
from pd_helpers.core.config import shown
from pd_helpers.runs.api import prepare
from pd_helpers.runs.calls import checked
from pd_helpers.runs.run import Run

SETTLE = 0.15
"""Seconds a slider must rest before training starts: a drag passes through many values."""
SLICE = 0.03
"""Seconds of training between two moments in which the front end is heard."""
REDRAW = 0.6
"""Seconds between two pictures while training."""
ROW = 32
"""Height of one control in pixels."""
STYLE = {"description_width": "15em"}
MARKUP = re.compile(r"&lt;(br|/(b|span)|(b|span)( class=&quot;pdh-[\w.-]+&quot;)?)&gt;")
"""The escaped tags that a line of numbers may hold."""
WIDE = w.Layout(width="34em", max_width="100%")


class Description(NamedTuple):
    """What a lab says about its picture."""

    readout: str
    """The numbers in one line. In it <b>, <br> and <span> are HTML, with a class `pdh-<name>` around a number that a
    page may look for; all else, such as the name of a layer, is shown as it stands."""
    alt: str
    """The picture in plain words."""


class Lab:
    """A column of controls, a line of numbers and a picture.

    The constructor of a subclass checks its arguments, makes the controls, calls this one, draws the parts of the
    picture that later only move, and ends with `on_move(controls, self.update)` and `update()`.

    Attributes:
        values: what the picture shows at present; a NamedTuple of the lab's own.
        figure, axes: the picture, and the (rows, columns) array of its panels.
        alt: the picture's description.
        widget: the whole lab, for display.
    """

    is_live = False
    """Whether a moved slider trains; otherwise the lab looks up or computes its answer at once."""

    def __init_subclass__(cls) -> None:
        """Let the constructor of every lab check the kinds of its arguments."""
        if "__init__" in vars(cls):
            cls.__init__ = checked()(cls.__init__)

    @checked()
    def __init__(self, controls: list[w.Widget], width: float, height: float, rows: int = 1, columns: int = 1):
        self.figure, self.axes = plots.figure(width, height, rows, columns)
        self.figure.set_facecolor("white")
        self.values: Any = None
        self.alt = ""
        self._image = w.Image(
            format="png",
            layout=w.Layout(width=f"{width * plots.DPI:.0f}px", max_width="100%", height="auto", object_fit="contain"),
        )
        self._image.add_class("pdh-picture")
        self._numbers = w.HTML(layout=w.Layout(min_height="2.2em"))
        self._numbers.add_class("pdh-readout")
        self._caption = w.HTML()
        self._thread, self._loop = threading.get_ident(), _running_loop()
        self.widget = w.VBox([*controls, self._numbers, self._image, self._caption])

    # What a subclass defines

    def compute(self) -> Any:
        """The values that the controls' present setting gives; draws nothing and changes no control."""
        raise NotImplementedError

    def draw(self, values: Any) -> None:
        """Move or redraw the picture so that it shows these values."""
        raise NotImplementedError

    def describe(self, values: Any) -> Description:
        """These values in a line of numbers and in words."""
        raise NotImplementedError

    # What is the same for all

    @property
    def picture(self) -> bytes:
        """The picture that the page shows, as PNG data."""
        return bytes(self._image.value)

    @property
    def readout(self) -> str:
        """The line of numbers that the page shows, as HTML."""
        return self._numbers.value

    def update(self) -> None:
        """Compute the values of the controls' present setting, and show them."""
        self.values = self.compute()
        self.draw(self.values)
        self.refresh(self.describe(self.values))

    def refresh(self, description: Description) -> None:
        """Show the figure as it now is, with its numbers and its description."""
        self.alt = description.alt
        self.figure.canvas.draw()  # once, where savefig draws twice
        buffer = io.BytesIO()
        imsave(buffer, self.figure.canvas.buffer_rgba(), format="png", dpi=plots.DPI, pil_kwargs={"compress_level": 3})
        self._image.value = buffer.getvalue()
        self.figure.set_layout_engine("none")  # after the first picture no panel moves, and drawing is quicker
        self._numbers.value = markup(description.readout)
        self._caption.value = plots.caption(description.alt)

    def on_move(self, controls: Iterable[w.Widget], act: Callable[[], object]) -> None:
        """Call `act()` whenever one of the controls gets a new value."""
        for control in controls:
            control.observe(lambda _: self.on_own_thread(act), "value")

    def offer(self, control: w.IntSlider, last: int) -> None:
        """Let a slider end at `last`, and update; the control must update the lab when it moves."""
        before = control.value
        control.max = last
        if control.value == before:  # otherwise the slider has moved back, which has updated the lab
            self.update()

    def on_own_thread(self, act: Callable[[], object]) -> None:
        """Call `act()` on the thread that made the lab, as soon as its event loop is free, and wait until it is done.

        JupyterLab reports moved sliders and pressed buttons on threads other than that of the cells ("subshells"), and
        not always on the same one. But two threads must never run one network, or draw one figure, at the same time.
        """

        async def turn() -> None:
            act()

        if self._loop is None or not self._loop.is_running() or threading.get_ident() == self._thread:
            act()
        else:
            asyncio.run_coroutine_threadsafe(turn(), self._loop).result()

    def _ipython_display_(self) -> None:
        data, metadata = plots.bundle(self.figure, self.alt)
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        display({"application/vnd.jupyter.widget-view+json": view, **data}, raw=True, metadata=metadata)


class LiveLab(Lab):
    """A lab whose sliders train.

    A subclass sets `progress` before it calls the constructor, and keeps what it trains in an attribute that
    `compute` reads.
    """

    is_live = True
    progress: "Progress"
    """The bar that shows how far training is, with its stop button."""
    task: asyncio.Task | None = None
    """The latest training; None before the first one, and where no event loop runs."""

    async def retrain(self) -> None:
        """Train with the sliders' present settings: prepare something to train, and `follow` its steps."""
        raise NotImplementedError

    def train_anew(self) -> None:
        """Cancel what is being trained, and `retrain` once the sliders rest.

        Where no event loop runs, the training is over when this returns.
        """
        if self.task is not None:
            self.task.cancel()
        self.progress.show("preparing", "info")
        if _running_loop() is None:
            asyncio.run(self._settle_and_retrain())
        else:
            self.task = asyncio.create_task(self._settle_and_retrain())

    async def _settle_and_retrain(self) -> None:
        try:
            await asyncio.sleep(SETTLE)
            await self.retrain()
        except Exception as error:
            self.progress.show("failed", "danger")
            self._numbers.value = markup(f"{type(error).__name__}: {error}")
            raise
        total = self.progress.bar.max
        self.progress.show("trained", "success", total, total)

    def cancel(self) -> None:
        """Stop training; the picture stays as it was last drawn, until a slider moves."""

        def stop() -> None:
            if self.task is not None and self.task.cancel():
                self.progress.show("stopped", "warning")

        self.on_own_thread(stop)

    async def follow(self, steps: Iterator[int], total: int) -> None:
        """Take all of `steps` under the progress bar, updating now and then, and giving way to the front end."""
        self.progress.show("training", "info", 0, total)
        yielded = updated = time.perf_counter()
        for done, _ in enumerate(steps):
            if time.perf_counter() - yielded < SLICE:
                continue
            self.progress.bar.value = done
            if time.perf_counter() - updated > REDRAW:
                self.update()
                updated = time.perf_counter()
            await asyncio.sleep(0.001)
            yielded = time.perf_counter()
        self.progress.bar.value = total
        self.update()


def markup(text: str) -> str:
    """A line of numbers as HTML: `MARKUP` takes effect, and all other characters stand for themselves."""
    return MARKUP.sub(lambda tag: html.unescape(tag[0]), html.escape(text))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def prepare_again(run: Run, **changes: Any) -> Run:
    """The run with some settings changed, at step 0: on the same target and from the same seed."""
    settings = run.config.to_dict() | changes
    return prepare(run.name, run.seed, target=run, device=run.device, **settings)


class Progress(w.HBox):
    """A bar that shows how far training is, and a button that cancels it."""

    def __init__(self, cancel: Callable[[], None]):
        self.bar = w.IntProgress(value=1, max=1, style=STYLE, layout=WIDE)
        self.bar.add_class("pdh-progress")
        self.stop = w.Button(description="stop", tooltip="stop this training", layout=w.Layout(width="auto"))
        self.stop.on_click(lambda _: cancel())
        super().__init__([self.bar, self.stop])
        self.show("trained", "success", 1, 1)

    def show(self, state: str, style: str, done: int | None = None, total: int | None = None) -> None:
        """Show the state of training in words and in colour, and how much of it is done."""
        self.bar.description, self.bar.bar_style, self.stop.disabled = state, style, state != "training"
        if total is not None:
            self.bar.max, self.bar.value = total, done


# Controls


def slider(description: str, value: float, low: float, high: float, step: float, digits: int) -> w.FloatSlider:
    """A slider over real numbers, shown with so many digits; ValueError for a value or ends that are no numbers."""
    if not math.isfinite(value) or not low < high < math.inf:
        raise ValueError(
            f"{description} must be a finite number on a slider from {low:g} to an end above it, but is {value:g} with "
            f"the end {high:g}; {low:g} and {low + 1:g} work"
        )
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


def whole(description: str, value: int, high: int, low: int = 0) -> w.IntSlider:
    """A slider over whole numbers."""
    return w.IntSlider(description=description, value=value, min=low, max=high, style=STYLE, layout=WIDE)


def choice(description: str, options: Sequence, value: object) -> w.SelectionSlider:
    """A slider over a few given values; ValueError for another one."""
    if value not in options:
        raise ValueError(
            f"{description} must be one of {shown(list(options))}, but is {shown(value)}; {shown(options[0])} works"
        )
    return w.SelectionSlider(description=description, options=options, value=value, style=STYLE, layout=WIDE)


def menu(description: str, options: Sequence) -> w.Dropdown:
    """A drop-down menu; the first option is chosen."""
    return w.Dropdown(description=description, options=options, style=STYLE, layout=WIDE)


def buttons(options: Sequence[tuple[str, str]]) -> w.ToggleButtons:
    """Buttons of which one is pressed, at first the first one, from (label, value) pairs."""
    return w.ToggleButtons(options=options, style={"button_width": "auto"})


# Parts of pictures


def reserve_titles(axes: Iterable[Axes], fontsize: int = 10, lines: int = 1) -> None:
    """Give each panel a blank title, so that the layout leaves room for those that moves will set."""
    for ax in axes:
        ax.set_title("\n".join([" "] * lines), fontsize=fontsize, y=1)


def open_frames(axes: Iterable[Axes]) -> None:
    """Hide the top and the right edge of each panel."""
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)


def blank_image(ax: Axes, rows: int, columns: int, cmap: str = "Blues", low: float = 0) -> AxesImage:
    """A heat map of numbers from `low` to 1, all zero until `set_data` is called."""
    blank = np.zeros((rows, columns))
    return ax.imshow(blank, cmap=cmap, vmin=low, vmax=1, aspect="auto", interpolation="nearest")


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
