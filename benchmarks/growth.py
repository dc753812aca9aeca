"""How do time and memory of the core grow with the number of components C and the batch size?

Every cell is measured in a process of its own. Peak memory on the CPU is how much the largest resident size of that
process grows from just before the first step, when parameters and data exist and torch is loaded, to the end; it is
right to a few megabytes. On CUDA it is torch's own count of the most bytes allocated at once. Top-k is what the
preset's ends at: active components per input do not depend on how many there are to choose from.
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
"""A cell is timed for this long, but for at least three steps and at most fifty."""


def growth(name: str, C: int, batch_size: int, device: str, overrides: dict[str, Any]) -> dict[str, float]:
    """Median `ms` a step and `peak_mb` of the core with C components and this batch size."""
    cell = {"name": name, "C": C, "batch_size": batch_size, "device": device, "threads": torch.get_num_threads()}
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", json.dumps(cell | {"overrides": overrides})],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(ended.stdout)


def measure(
    name: str, C: int, batch_size: int, device: str, threads: int, overrides: dict[str, Any]
) -> dict[str, float]:
    """One cell, in this process."""
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
    """Bytes of this process that were in memory at once, at most, so far.

    Linux's getrusage would do, but there it starts at the size of the process that started this one.
    """
    if (status := Path("/proc/self/status")).exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
