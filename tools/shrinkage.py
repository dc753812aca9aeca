"""Make docs/shrinkage.gif, the picture in README.md: the shrinkage lab in JupyterLab, its slider taken across."""

import io
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import browser  # noqa: E402

LAB = """
import pd_helpers as pdh
pdh.widgets.ShrinkageLab(pdh.shipped("apd/tms_5-2"), pdh.shipped_sweep("apd/tms_5-2"))
"""
HEIGHT = 535
"""Pixels, down to where the caption starts."""


def main() -> int:
    """Photograph the lab at each value of λ_S."""
    executable = browser.find_browser() or sys.exit(f"install one of {', '.join(browser.BROWSERS)}")
    with (
        browser.serve(browser.NOTEBOOKS) as server,
        browser.launch(executable) as chromium,
        browser.jupyter_page(chromium, server) as page,
    ):
        browser.serve_cells(page, "shrinkage", LAB)
        [lab] = page.labs
        simplicity, frames, readout = lab.sliders[0].press("Home"), [], None
        while simplicity.readout != readout:
            readout = simplicity.readout
            lab.settled(timeout=30)
            picture = Image.open(io.BytesIO(lab.box.screenshot())).convert("RGB")
            frames.append(picture.crop((0, 0, picture.width, HEIGHT)))
            simplicity.press("ArrowRight")
        if errors := page.errors():
            sys.exit("\n".join(errors))
    strip = Image.new("RGB", (frames[0].width, HEIGHT * len(frames)))
    for number, frame in enumerate(frames):
        strip.paste(frame, (0, number * HEIGHT))
    colors = strip.quantize(128)  # the same for all frames, so that nothing flickers
    frames = [frame.quantize(palette=colors, dither=Image.Dither.NONE) for frame in frames]
    first, *rest = [*frames, *frames[-2:0:-1]]
    first.save(ROOT / "docs" / "shrinkage.gif", save_all=True, append_images=rest, duration=700, loop=0, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
