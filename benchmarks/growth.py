"""How do time and memory of the core grow with the number of components C and the batch size?

Every cell of the tables is measured in a process of its own. Peak memory on the CPU is the growth of that process's
largest resident size, from just before the first step, when parameters and data exist and torch is loaded, to the end;
it is accurate to a few megabytes. On CUDA it is torch's own count of the most bytes allocated at once. Top-k is the
final value of the preset, whatever C is, because the number of active components per input does not depend on C.
"""

import json
import resource
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import torch

from benchmarks.pair import prepare
from benchmarks.timing import WARM_UP, block, steady

COMPONENTS = [10, 25, 50, 100, 200, 400]
BATCH_SIZES = [256, 512, 1024, 2048, 4096, 8192]
SECONDS = 2.0
"""Seconds for which a cell is timed; at least three steps are timed, and at most fifty."""


def growth(name: str, C: int, batch_size: int, device: str, overrides: dict[str, Any]) -> dict[str, float]:
    """Median time `ms` of a step and peak memory `peak_mb` of the core, for C components and this batch size."""
    cell = {"name": name, "C": C, "batch_size": batch_size, "device": device, "threads": torch.get_num_threads()}
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", json.dumps(cell | {"overrides": overrides})],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(process.stdout)


def measure(
    name: str, C: int, batch_size: int, device: str, threads: int, overrides: dict[str, Any]
) -> dict[str, float]:
    """Measure one cell in this process."""
    torch.set_num_threads(threads)
    pair = prepare(name, device, **{**steady(name), **overrides, "C": C, "batch_size": batch_size})
    steps, cuda = pair.core_steps(), pair.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else largest_resident_size()
    block(steps, WARM_UP, pair.device)
    seconds, began = [], time.perf_counter()
    for n in count(1):
        seconds.append(block(steps, 1, pair.device))
        if n >= 50 or (n >= 3 and time.perf_counter() - began > SECONDS):
            break
    after = torch.cuda.max_memory_allocated() if cuda else largest_resident_size()
    return {"ms": 1000 * sorted(seconds)[len(seconds) // 2], "peak_mb": (after - before) / 1e6}


def largest_resident_size() -> int:
    """The largest number of bytes of this process that have been in memory at once so far.

    On Linux getrusage is of no use, because its count begins with the size of the parent process.
    """
    if (status := Path("/proc/self/status")).exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
