"""How long does a step take? Textbook and core in one process, in turns, on the same batches.

    ms = median over blocks of (seconds of the block) / (steps in it) · 1000

A block is a few steps of one implementation, then come as many of the other, so that whatever else the machine does
meets both alike. Warm-up steps are not counted. The target is trained briefly, see `pair.TARGET_STEPS`: its weights
decide nothing about speed except how many outputs are off.
"""

import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.pair import prepare
from pd_helpers.apd import APDConfig
from pd_helpers.presets import preset

PAPERS_BATCH = {
    ("apd", "tms"): 2048,
    ("apd", "residual_mlp"): 256,  # section C.2 and public configs; D.2 has 2048
    ("apd", "gated"): 10_000,
    ("spd", "tms"): 4096,
    ("spd", "residual_mlp"): 2048,
}
"""Rows a step in the papers, at which both are timed; most presets need fewer, which is not what is compared here."""
BLOCK = 5
"""Steps in a row of one implementation."""
WARM_UP = 5
"""Steps of each before the clock starts."""


def compare(name: str, steps: int, device: str = "auto", overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Time `steps` steps of a preset at the papers' batch size in both implementations; `pair` explains `max_abs_diff`.

    Losses and gradients are compared at the parameters that the textbook has reached by then, in float64 so that the
    number says whether they compute the same, and in float32, as timed (on Apple's GPUs only that).
    """
    batch_size = PAPERS_BATCH[name.split("/")[0], preset(name).target.kind]
    settings = {"batch_size": batch_size, **steady(name), **(overrides or {})}
    pair = prepare(name, device, at_least_steps=steps + WARM_UP, **settings)
    textbook_ms, core_ms = in_turns([pair.textbook_steps(), pair.core_steps()], steps, pair.device)
    rounding = pair.max_abs_diff(torch.float32)
    return {
        "experiment": name,
        "device": pair.device.type,
        "textbook_ms": textbook_ms,
        "core_ms": core_ms,
        "ratio": textbook_ms / core_ms,
        "max_abs_diff": rounding if pair.device.type == "mps" else pair.max_abs_diff(torch.float64),
        "max_abs_diff_float32": rounding,
        "steps": steps,
        "batch_size": pair.config.batch_size,
        "C": pair.config.C,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def steady(name: str) -> dict[str, Any]:
    """A top-k that does not fall, as in the papers: else the few steps timed would all be among the busiest."""
    return {"top_k_start": None} if isinstance(preset(name).config, APDConfig) else {}


def in_turns(trainings: list[Iterator], steps: int, device: torch.device) -> list[float]:
    """Milliseconds a step of each training, block by block in turn."""
    for training in trainings:
        block(training, WARM_UP, device)
    sizes = [BLOCK] * (steps // BLOCK) + [steps % BLOCK] * (steps % BLOCK > 0)
    seconds = [[block(training, n, device) / n for training in trainings] for n in sizes]
    return [1000 * statistics.median(of_one) for of_one in zip(*seconds, strict=True)]


def block(training: Iterator, n: int, device: torch.device) -> float:
    """Seconds that n steps take."""
    synchronize(device)
    began = time.perf_counter()
    for _ in itertools.islice(training, n):
        pass
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()
