"""What all pictures share: their sizes and colours, and the way they are shown with their alt texts."""

import base64
import io

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from pd_helpers.runs.calls import checked

COLORS = sns.color_palette("colorblind")
"""One colour for each component, in order; after ten the colours repeat."""
GREY = "0.45"
"""For lines of comparison and annotations."""
POSITIVE, NEGATIVE = COLORS[0], COLORS[3]
"""Blue for positive weights, orange-red for negative ones."""
DPI = 100
"""Pixels per inch."""
LARGEST = 200
"""Inches of a side of a figure at most."""
VIRIDIS = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.92, 256)))
"""For a hundred features: viridis without its palest end, which can hardly be seen on white."""


@checked()
def color(c: int) -> tuple[float, float, float]:
    """The colour of component or feature c."""
    return COLORS[c % len(COLORS)]


@checked()
def figure(width: float, height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """A figure, `width` by `height` inches, with an array of axes (rows, columns); pyplot does not know it."""
    if not (0 < width <= LARGEST and 0 < height <= LARGEST and rows >= 1 and columns >= 1):
        raise ValueError(
            f"width and height must be above 0 and at most {LARGEST} inches, rows and columns at least 1, but they are "
            f"{width}, {height}, {rows} and {columns}; figure(9, 4) works"
        )
    fig = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, squeeze=False, **options)


@checked()
def png(fig: Figure) -> bytes:
    """The figure as PNG data."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


@checked()
def show(fig: Figure, alt: str) -> None:
    """Display a figure with its alt text, in the metadata of the output and as a visible sentence below the figure.

    The visible sentence is needed because JupyterLab does not read the metadata.
    """
    from IPython.display import display

    data, metadata = bundle(fig, alt)
    display(data, raw=True, metadata=metadata)
    display({"text/html": caption(alt), "text/plain": f"Figure: {alt}"}, raw=True)


@checked()
def bundle(fig: Figure, alt: str) -> tuple[dict[str, str], dict[str, dict]]:
    """The figure as notebook output: data and metadata by MIME type, with the alt text in both."""
    data = {"image/png": base64.b64encode(png(fig)).decode(), "text/plain": alt}
    return data, {"image/png": {"alt": alt, "width": round(fig.get_figwidth() * DPI)}}


@checked()
def caption(alt: str) -> str:
    """The alt text as a line of HTML below a figure."""
    from html import escape

    return f'<p style="font-size:90%;opacity:.8;margin-top:0"><b>Figure.</b> {escape(alt)}</p>'
