"""How fast is the core, compared with the textbook, and how do its time and memory grow with the problem?

    python -m benchmarks NAME [--steps N] [--device D] [--set KEY=VALUE] [--threads N]    one experiment
    python -m benchmarks --all [...]                                                      all of them, as a table
    python -m benchmarks --growth NAME [--C ...] [--batch ...]                            time and memory of the core

Readable lines go to stderr; stdout ends with one JSON object, or holds one Markdown table. Exit code 2 means bad input.
"""

import argparse
import datetime
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.growth import BATCH_SIZES, COMPONENTS, growth
from benchmarks.timing import compare
from pd_helpers.__main__ import key_and_value
from pd_helpers.core.training import pick_device
from pd_helpers.runs.presets import PRESETS, preset

STEPS = 50
"""Timed steps of each implementation, unless said otherwise."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("name", nargs="?", help="time this experiment, such as apd/tms_5-2, in textbook and core")
    task.add_argument("--all", action="store_true", help="time every experiment and print a Markdown table")
    task.add_argument("--growth", metavar="NAME", help="time and memory of the core against C and batch size")
    parser.add_argument("--steps", type=int, help=f"timed steps of each implementation (default {STEPS})")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    parser.add_argument("--threads", type=int, help="torch's threads for both implementations (default torch's own)")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override a field")
    parser.add_argument("--C", type=int, nargs="+", help="for --growth: components per layer")
    parser.add_argument("--batch", type=int, nargs="+", help="for --growth: batch sizes")
    options = parser.parse_args(arguments)
    before = torch.get_num_threads()
    try:
        overrides = dict(key_and_value(text) for text in options.set)
        check(options, overrides)
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        steps = options.steps or STEPS
        if options.growth:
            print_growth(
                options.growth, options.C or COMPONENTS, options.batch or BATCH_SIZES, options.device, overrides
            )
        elif options.all:
            print_all(steps, options.device, overrides)
        else:
            result = compare(options.name, steps, options.device, overrides)
            say(sentence(result))
            print(json.dumps(result))
        return 0
    except (ValueError, TypeError) as error:
        say(f"error: {error}")
        return 2
    finally:
        torch.set_num_threads(before)


def check(options: argparse.Namespace, overrides: dict[str, Any]) -> None:
    """Raise ValueError or TypeError, before any work starts, for arguments that cannot work."""
    numbers = {"steps": [options.steps], "threads": [options.threads], "C": options.C, "batch": options.batch}
    for name, values in numbers.items():
        for value in values or ():
            if value is not None and value < 1:
                example = {"steps": STEPS, "threads": 1, "C": 50, "batch": 1024}[name]
                raise ValueError(f"{name} must be a whole number of at least 1, but is {value}; {example} works")
    if options.growth and options.steps:
        raise ValueError(f"steps is {options.steps}, but --growth decides how many it takes; leave --steps out")
    for name, key, values in (("C", "C", options.C), ("batch", "batch_size", options.batch)):
        if values and not options.growth:
            raise ValueError(f"--{name} goes with --growth; --set {key}={values[0]} works")
        if options.growth and key in overrides:
            raise ValueError(f"--growth varies {key} itself; --{name} {overrides[key]} works")
    for name in PRESETS if options.all else [options.name or options.growth]:
        preset(name).replace(**(fitting(name, overrides) if options.all else overrides))
    if pick_device(options.device).type == "mps" and options.growth:
        raise ValueError("device is 'mps', but --growth can measure memory on cpu and cuda only; cpu works")


def fitting(name: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """The overrides without fields that only other experiments have, such as `rank` for SPD."""
    fields = {name: {**known.target.to_dict(), **known.config.to_dict()} for name, known in PRESETS.items()}
    other_fields = set().union(*fields.values()) - set(fields[name])
    return {key: value for key, value in overrides.items() if key not in other_fields}


def print_all(steps: int, device: str, overrides: dict[str, Any]) -> None:
    """Print a table with a row for every experiment, and under it the machine on which it was measured."""
    rows = []
    for name in PRESETS:
        rows.append(compare(name, steps, device, fitting(name, overrides)))
        say(sentence(rows[-1]))
    print("| experiment | batch | C | textbook, ms a step | core, ms a step | ratio | max abs diff |")
    print("|---|---|---|---|---|---|---|")
    for r in rows:
        times = f"{r['textbook_ms']:.2f} | {r['core_ms']:.2f} | {r['ratio']:.1f}"
        print(f"| `{r['experiment']}` | {r['batch_size']} | {r['C']} | {times} | {r['max_abs_diff']:.0e} |")
    print(f"\nMedians of {steps} steps on {machine(device)}.")


def print_growth(name: str, Cs: list[int], batch_sizes: list[int], device: str, overrides: dict[str, Any]) -> None:
    """Print a table of milliseconds and one of megabytes, with C in the rows and batch sizes in the columns."""
    cells = {}
    for C in Cs:
        for batch_size in batch_sizes:
            cell = cells[C, batch_size] = growth(name, C, batch_size, device, overrides)
            say(f"C {C}, batch {batch_size}: {cell['ms']:.2f} ms a step, {cell['peak_mb']:.0f} MB")
    print(f"`{name}`, the core alone, on {machine(device)}.")
    for key, title in (("ms", "ms a step"), ("peak_mb", "peak MB")):
        print(f"\n| {title} | " + " | ".join(f"batch {b}" for b in batch_sizes) + " |")
        print("|---|" + "---|" * len(batch_sizes))
        for C in Cs:
            print(f"| C {C} | " + " | ".join(f"{cells[C, b][key]:.3g}" for b in batch_sizes) + " |")


def sentence(result: dict[str, Any]) -> str:
    """The result of one comparison in words."""
    return (
        f"{result['experiment']}: textbook {result['textbook_ms']:.2f} ms a step, core {result['core_ms']:.2f} ms, "
        f"{result['ratio']:.1f} times faster; losses and gradients agree to {result['max_abs_diff']:.0e}"
    )


def machine(device: str) -> str:
    """The machine on which numbers were measured."""
    at = pick_device(device)
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        cpu = next((line.split(": ")[1] for line in info.read_text().splitlines() if "model name" in line), cpu)
    description = f"{cpu}, {os.cpu_count()} cores, torch {torch.__version__} on {torch.get_num_threads()} of them"
    if at.type == "cuda":
        description = f"{torch.cuda.get_device_name()}, {description}"
    return f"{description}, {datetime.date.today()}"


def say(text: str) -> None:
    """Print a line to stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
