"""How long does a training step take? Textbook and core are timed in one process, in turns, on the same batches.

    ms = median over blocks of (seconds of the block) / (steps in it) · 1000

A block is a few steps of one implementation, followed by a block of the other, so that anything else the machine does
affects both alike. Warm-up steps are not counted. The target is trained briefly, see `pair.TARGET_STEPS`, because its
weights influence speed only through the share of outputs that are zero.
"""

import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.pair import prepare
from pd_helpers.core.apd import APDConfig
from pd_helpers.runs.presets import preset

PAPERS_BATCH = {
    ("apd", "tms"): 2048,
    ("apd", "residual_mlp"): 256,  # section C.2 and public configurations; section D.2 says 2048
    ("apd", "gated"): 10_000,
    ("spd", "tms"): 4096,
    ("spd", "residual_mlp"): 2048,
    ("vpd", "tms"): 4096,
    ("vpd", "residual_mlp"): 2048,
    ("vpd", "pingpong"): 4096,
    ("spd", "induction"): 64,
    ("vpd", "induction"): 64,
}
"""Number of inputs per training step in the papers, at which both implementations are timed. Most presets use fewer."""
BLOCK = 5
"""Number of steps in a block."""
WARM_UP = 5
"""Number of steps of each implementation before the clock starts."""


def compare(name: str, steps: int, device: str = "auto", overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Time `steps` steps of a preset at the papers' batch size in both implementations; `pair` explains `max_abs_diff`.

    Losses and gradients are compared at the parameters that the textbook has then reached: in float64, which shows
    whether both compute the same, and in float32, in which they were timed. Apple's GPUs have float32 only.
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
    """Overrides for a constant top-k, as in the papers; otherwise it would be largest in the few steps timed."""
    return {"top_k_start": None} if isinstance(preset(name).config, APDConfig) else {}


def in_turns(trainings: list[Iterator], steps: int, device: torch.device) -> list[float]:
    """Milliseconds per step of each training, measured block by block in turn."""
    for training in trainings:
        block(training, WARM_UP, device)
    sizes = [BLOCK] * (steps // BLOCK) + [steps % BLOCK] * (steps % BLOCK > 0)
    seconds = [[block(training, n, device) / n for training in trainings] for n in sizes]
    return [1000 * statistics.median(times) for times in zip(*seconds, strict=True)]


def block(training: Iterator, n: int, device: torch.device) -> float:
    """Seconds that n steps take."""
    synchronize(device)
    began = time.perf_counter()
    for _ in itertools.islice(training, n):
        pass
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished all of its work."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()
