"""When, where and with what a run was trained."""

import warnings
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

CIRCUMSTANCES = ("date", "device", "threads", "instruction_set", "versions")
"""Names of what `circumstances` gives."""


def circumstances(device: str) -> dict[str, Any]:
    """Date, device, threads, instruction set and versions of what is trained now."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "device": device,
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "versions": {"pd_helpers": own_version(), "torch": torch.__version__},
    }


def own_version() -> str:
    """The version of this package."""
    try:
        return version("pd-helpers")
    except PackageNotFoundError:  # used from a folder, without being installed
        return "unknown"


def warn_of_differences(stored: dict[str, Any], now: dict[str, Any]) -> None:
    """Warn of what keeps a resumed run from being the same bit for bit: other threads, processors or versions."""
    if stored["threads"] != now["threads"]:
        warnings.warn(
            f"this run was started on {stored['threads']} threads and continues with {now['threads']}, so its numbers "
            f"may differ by rounding from those it would have had; torch.set_num_threads({stored['threads']}) before "
            f"resuming, or OMP_NUM_THREADS={stored['threads']} on the command line, makes them the same",
            stacklevel=3,
        )
    before, after = stored.get("instruction_set", now["instruction_set"]), now["instruction_set"]
    if before != after:
        warnings.warn(
            f"this run was started with the processor's instruction set {before} and continues with {after}, so its "
            f"numbers may differ by rounding from those it would have had; on a processor that has {before}, the "
            f"environment variable ATEN_CPU_CAPABILITY={before.lower()} makes them the same",
            stacklevel=3,
        )
    if stored["versions"] != now["versions"]:
        before, after = (", ".join(f"{k} {v}" for k, v in facts["versions"].items()) for facts in (stored, now))
        warnings.warn(
            f"this run was started with {before} and continues with {after}, so its numbers may differ from those it "
            "would have had",
            stacklevel=3,
        )
