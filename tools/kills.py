"""Kill runs at random moments, resume them, and compare with runs that nothing stopped: every bit must be the same.

    python tools/kills.py --kills 100 apd/tms_5-2 spd/tms_5-2_id

Every kill is a SIGKILL to a command line of its own, at a moment drawn evenly over the time that a whole run takes:
while modules are imported, while the target trains, while initialisations compete, while files are written. Some runs
are killed again while they resume. A folder from before the first checkpoint must take the run anew.
"""

import argparse
import hashlib
import json
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

PRESETS = ("apd/tms_5-2", "spd/tms_5-2", "spd/tms_5-2_id", "apd/gated")
SETTINGS = {"steps": 1500, "selection_steps": 500, "n_init": 2, "target_steps": 3000, "batch_size": 64}
PROGRAM = """
import sys
from pd_helpers.runs import files
from pd_helpers.__main__ import main
files.CHECKPOINT_EVERY, files.CHECKPOINT_SHARE = 0.05, 1.0  # twenty a second, so that many kills hit one being written
sys.exit(main(sys.argv[1:]))
"""


def main(arguments: list[str] | None = None) -> int:
    """The developer's command; the exit code is 1 if any run ended otherwise than the whole one."""
    parser = argparse.ArgumentParser(prog="python tools/kills.py", description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", default=PRESETS, help="presets to run; by default four")
    parser.add_argument("--kills", type=int, default=20, help="number of runs that are killed (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default 0)")
    options = parser.parse_args(arguments)
    draw, ends = random.Random(options.seed), Counter()
    with tempfile.TemporaryDirectory() as temporary:
        wholes = {}
        for preset in options.presets:
            began = time.perf_counter()
            wholes[preset] = finish(start(preset, folder := Path(temporary, preset, "whole"))), digest(folder)
            wholes[preset] += (time.perf_counter() - began,)
        for i in range(options.kills):
            preset = options.presets[i % len(options.presets)]
            metrics, bits, seconds = wholes[preset]
            folder = Path(temporary, preset, str(i))
            places = kill_and_resume(preset, folder, draw, seconds, metrics)
            same = digest(folder) == bits
            for place in places:
                ends[place, "same" if same else "OTHER BITS"] += 1
            print(f"{i + 1:4} {preset:16} killed {' then '.join(places)}: {'same bits' if same else 'OTHER BITS'}")
    for (place, end), n in sorted(ends.items()):
        print(f"{n:4} killed {place}: {end}")
    return int(any(end != "same" for _, end in ends))


def kill_and_resume(preset: str, folder: Path, draw: random.Random, seconds: float, metrics: dict) -> list[str]:
    """Start, kill, and resume, which is killed too half of the times; says where it was killed."""
    process, places = start(preset, folder), []
    for _ in range(2):
        time.sleep(draw.uniform(0, seconds))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        places.append(where(folder))
        has_checkpoint = (folder / "checkpoint.safetensors").exists() or (folder / "run.json").exists()
        process = start(preset, folder, resume=has_checkpoint)
        if draw.random() < 0.5:
            break
    if finish(process) != metrics:
        places.append("(other metrics)")
    return places or ["never"]


def start(preset: str, folder: Path, *, resume: bool = False) -> subprocess.Popen:
    """A command line that runs the preset into this folder, or resumes it there."""
    words = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}") if takes(preset, key)]
    command = ["resume", str(folder)] if resume else ["run", preset, "--seed", "3", "--out", str(folder), *words]
    command = [sys.executable, "-c", PROGRAM, *command]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def takes(preset: str, key: str) -> bool:
    """Whether the preset has this setting: a target that is written by hand has no training."""
    return not (preset == "apd/gated" and key.startswith("target_"))


def finish(process: subprocess.Popen) -> dict:
    """The metrics on the last line of output; RuntimeError with the errors if there are none."""
    out, error = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{shlex.join(process.args[3:])} ended with {process.returncode}: {error[-500:]}")
    return json.loads(out.splitlines()[-1])["metrics"]


def where(folder: Path) -> str:
    """What was going on when the run was killed, as its folder shows."""
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    partial = ", a file being written" if any(name.startswith(".partial-") for name in names) else ""
    if "run.json" in names:
        return "after the end" + partial
    if "checkpoint.safetensors" not in names:
        return "before the first checkpoint" + partial
    data = (folder / "checkpoint.safetensors").read_bytes()
    facts = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["facts"])
    stage = {0: "in the target's training", 1: "in training"}.get(len(facts["candidates"]), "in the selection")
    return stage + partial


def digest(folder: Path) -> str:
    """A checksum of all tensors of a finished run, of its history, and of its metrics."""
    facts = json.loads((folder / "run.json").read_text())
    text = json.dumps([facts["history"], facts["metrics"], facts["snapshot_steps"], facts["config"]])
    return hashlib.sha256((folder / "tensors.safetensors").read_bytes() + text.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
