"""Does everything work on a GPU, and how fast is it there? For whoever has one; ends with one JSON file.

    python tools/gpu_check.py [--out gpu_check.json] [--only tests table runs] [--names NAME ...] [--device cuda]

    tests    tests/test_gpu.py: losses and gradients, recorded steps, networks of one's own, runs that were stopped
    table    milliseconds a step at the papers' batch sizes: the textbook, the core, and the core's recorded step
    runs     three large runs with `cuda_graph`, from training the target to measuring

All three take a few minutes. `python tools/gpu_check.py --show gpu_check.json` prints such a file as Markdown tables.
"""

import argparse
import datetime
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import pd_helpers as pdh  # noqa: E402
from benchmarks.pair import prepare  # noqa: E402
from benchmarks.timing import PAPERS_BATCH, WARM_UP, compare, in_turns, steady  # noqa: E402
from pd_helpers.runs.presets import PRESETS, preset  # noqa: E402

STEPS = 50
"""Timed steps of each implementation."""
RUNS: dict[str, dict[str, Any]] = {
    "spd/tms_40-10": {"paper": True, "steps": 10_000},
    "apd/resid_mlp_2_rank1": {},
    "spd/resid_mlp_3": {},
}
"""The large runs, and what they change about the preset."""


def run_tests() -> dict[str, Any]:
    """Run the GPU's tests in another process: the numbers of those that passed and failed, and which failed."""
    command = [sys.executable, "-m", "pytest", "--noconftest", "-o", "addopts=", "-q", "-rf", "--tb=short"]
    began = time.perf_counter()
    done = subprocess.run([*command, "tests/test_gpu.py"], cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    print("\n".join(lines[-150:]))
    failed = [line.removeprefix("FAILED ") for line in lines if line.startswith("FAILED ")]
    return {"summary": lines[-1] if lines else done.stderr, "failed": failed, "seconds": time.perf_counter() - began}


def row_of(name: str, device: str) -> dict[str, Any]:
    """Milliseconds a step of one preset; `recorded_ms` is None where a step cannot be recorded."""
    result = compare(name, STEPS, device)
    keep = {"textbook_ms", "core_ms", "max_abs_diff", "batch_size", "C"}
    can_be = not name.startswith("vpd/")  # whose settings change from step to step
    recorded = recorded_ms(name, device) if device == "cuda" and can_be else None
    return {"experiment": name, **{k: v for k, v in result.items() if k in keep}, "recorded_ms": recorded}


def recorded_ms(name: str, device: str) -> float:
    """Milliseconds a step of the core with `cuda_graph`."""
    batch_size = PAPERS_BATCH[name.split("/")[0], preset(name).target.kind]
    settings = {"batch_size": batch_size, "cuda_graph": True, **steady(name)}
    pair = prepare(name, device, at_least_steps=STEPS + WARM_UP, **settings)
    return in_turns([pair.core_steps()], STEPS, pair.device)[0]


def large_run(name: str, device: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Train one preset with `cuda_graph`, and say how good it is and how long it took."""
    run = pdh.run(name, device=device, show_progress=False, cuda_graph=device == "cuda", **overrides)
    return {
        "experiment": name,
        "changes": overrides,
        "steps": run.config.steps,
        "seconds": run.seconds,
        "target_seconds": run.target_seconds,
        "metrics": run.metrics,
        "memory": torch.cuda.max_memory_allocated() if device == "cuda" else None,
    }


def tried(what: str, function, *arguments: Any) -> dict[str, Any]:
    """What the function gives; or its error, so that everything after it is still tried."""
    began = time.perf_counter()
    try:
        found = function(*arguments)
    except Exception as error:
        found = {"experiment": what, "error": f"{type(error).__name__}: {error}"}
    print(f"{what}: {time.perf_counter() - began:.0f} s {found}", flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    parser.add_argument("--only", nargs="+", choices=("tests", "table", "runs"), default=["tests", "table", "runs"])
    parser.add_argument("--names", nargs="+", default=list(PRESETS), help="experiments of the table")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--show", type=Path, help="print such a file as Markdown, and do nothing else")
    options = parser.parse_args(arguments)
    if options.show:
        print(as_markdown(json.loads(options.show.read_text())))
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: device is 'cuda', but torch finds no CUDA device here; --device cpu works", file=sys.stderr)
        return 2
    report: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if options.device == "cuda" else "CPU",
        "torch": torch.__version__,
        "pd_helpers": pdh.__version__,
        "date": datetime.date.today().isoformat(),
    }

    def write() -> None:
        options.out.write_text(json.dumps(report, indent=1) + "\n")

    if "tests" in options.only:
        report["tests"] = tried("tests", run_tests)
        write()
    if "table" in options.only:
        report["table"] = []
        for name in options.names:
            report["table"].append(tried(name, row_of, name, options.device))
            write()
    if "runs" in options.only:
        report["runs"] = []
        for name, overrides in RUNS.items():
            report["runs"].append(tried(name, large_run, name, options.device, overrides))
            write()
    parts = [report.get("tests", {}), *report.get("table", []), *report.get("runs", [])]
    return int(any("error" in part or part.get("failed") for part in parts))


def as_markdown(report: dict[str, Any]) -> str:
    """The tables of a report."""

    def ms(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    lines = [f"{report['card']}, torch {report['torch']}, {report['date']}", ""]
    lines += ["| experiment | batch | textbook ms | core ms | recorded ms |", "|---|---|---|---|---|"]
    lines += [
        f"| `{row['experiment']}` | {row.get('batch_size', '')} | {ms(row.get('textbook_ms'))} | "
        f"{ms(row['core_ms'])} | {ms(row['recorded_ms'])} |"
        for row in report.get("table", [])
        if "error" not in row
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
