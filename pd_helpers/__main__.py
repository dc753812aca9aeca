"""The command line: `python -m pd_helpers list`, `run NAME`, `resume DIR` and `reproduce NAME`.

    torchrun --nproc-per-node 4 -m pd_helpers run spd/tms_5-2      one run on four processes, such as one for each GPU

Progress goes to stderr; the last line on stdout is one JSON object. Exit code 2 means bad input, 130 Ctrl-C.
"""

import argparse
import io
import json
import shlex
import sys
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NoReturn

import pd_helpers as pdh
from pd_helpers.core.config import shown
from pd_helpers.core.machine.ranks import end, is_first
from pd_helpers.runs import files
from pd_helpers.runs.folders import checked_path, has_checkpoint, is_finished
from pd_helpers.runs.shipped import difference, reproduce
from pd_helpers.runs.sweeps import flat

INSTEAD = {
    "name": "pd_helpers run apd/tms_5-2",
    "seed": "--seed 1",
    "device": "--device cpu",
    "out": "--out DIR",
    "paper": "--paper",
    "show_progress": "2> /dev/null",
    "target": "pdh.run(..., target=network) in Python",
}
"""What is no field of an experiment, and so nothing for --set → what does that."""


class Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {' '.join(f'{message}; {self.format_usage()}'.split())}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Of several processes, as `torchrun` starts them, rank 0 alone speaks."""
    if is_first():
        return _main(arguments)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        code = _main(arguments)
    if code:
        time.sleep(1)  # once one process has failed, torchrun ends the others: rank 0 shall have said why
    return code


def _main(arguments: list[str] | None) -> int:
    parser = Parser(prog="python -m pd_helpers", description="Decompose a network's parameters.")
    commands = parser.add_subparsers(dest="command", required=True)

    listing = commands.add_parser("list", help="show the experiments")
    listing.add_argument("--json", action="store_true", help="as one JSON object, settings included")

    run = commands.add_parser("run", help="train a target and decompose it")
    run.add_argument("name", help="an experiment, such as apd/tms_5-2")
    run.add_argument("--seed", type=int, default=0, help="seed of target, initial factors, data and masks (default 0)")
    run.add_argument("--paper", action="store_true", help="use the paper's own settings, which take far longer")
    run.add_argument("--steps", type=int, help="training steps of the decomposition")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    run.add_argument("--out", metavar="DIR", help="write the run to this new folder, checkpoints on the way")
    run.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override a field, such as simplicity_coeff=0.1",
    )

    resume = commands.add_parser("resume", help="continue a run that was stopped")
    resume.add_argument("out", metavar="DIR", help="what was --out; a finished run is reported, not repeated")

    reproduce = commands.add_parser("reproduce", help="train a shipped run again and compare")
    reproduce.add_argument("name", help="an experiment of which a run is shipped, such as spd/tms_5-2")
    reproduce.add_argument("--variant", help="such as seed1 (default seed0)")
    reproduce.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")

    options = parser.parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
            {"list": _list, "run": _run, "resume": _resume, "reproduce": _reproduce}[options.command](options)
    except (ValueError, TypeError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; {_after_ctrl_c(options)}", file=sys.stderr)
        return 130
    return 0


def _list(options: argparse.Namespace) -> None:
    if options.json:
        presets = {
            name: {
                "source": p.source,
                "target": p.target.to_dict(),
                "config": p.config.to_dict(),
                "paper": {"target": p.paper_target.to_dict(), "config": p.paper.to_dict()},
                "published": p.published,
                "differs": p.differs,
                "notes": list(p.notes),
            }
            for name, p in pdh.PRESETS.items()
        }
        print(json.dumps(presets))
        return
    width = max(map(len, pdh.PRESETS))
    for name, p in pdh.PRESETS.items():
        print(f"{name:{width}}  {p.target.summary}, C {p.config.C}; {p.source}")


def _run(options: argparse.Namespace) -> None:
    pairs = [key_and_value(text) for text in options.set]
    if options.steps is not None:
        pairs.append(("steps", options.steps))
    overrides = dict(pairs)
    for key in overrides:
        if key in INSTEAD:
            raise ValueError(f"--set takes fields of the experiment, and {key} is none; {INSTEAD[key]} works")
        if (n := [name for name, _ in pairs].count(key)) > 1:
            raise ValueError(f"{key} is set {n} times; leave all but one of them out")
    run = pdh.run(options.name, options.seed, paper=options.paper, device=options.device, out=options.out, **overrides)
    print(json.dumps(report(run)))


def _resume(options: argparse.Namespace) -> None:
    folder = checked_path(options.out)
    if not is_finished(folder):
        print(json.dumps(report(pdh.resume(folder))))
        return
    _, facts = files.read_run(folder)
    if facts["target_config"]:  # a network of one's own cannot be given here
        pdh.resume(folder)
    print(json.dumps(_reported(facts)))


def _reproduce(options: argparse.Namespace) -> None:
    run, facts = reproduce(options.name, options.variant, device=options.device)
    old, new = facts["metrics"], run.metrics
    differs = difference(new, old)
    before, after, change = flat(old), flat(new), flat(differs)
    print(f"{'metric':20} {'recorded':>12} {'reproduced':>12} {'difference':>12}", file=sys.stderr)
    for key in change:
        print(f"{key:20} {before[key]:12.5g} {after[key]:12.5g} {change[key]:12.2g}", file=sys.stderr)
    print(json.dumps({**report(run), "shipped_metrics": old, "difference": differs}))


def report(run: pdh.Run) -> dict[str, Any]:
    """What the last line of output says of a finished run."""
    facts = {"experiment": run.name, "seed": run.seed, "device": run.device, "config": run.config.to_dict()}
    return _reported({**facts, "seconds": run.seconds, "target_seconds": run.target_seconds, "metrics": run.metrics})


def _reported(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "experiment": facts["experiment"],
        "seed": facts["seed"],
        "device": facts["device"],
        "steps": facts["config"]["steps"],
        "seconds": round(facts["seconds"], 3),
        "target_seconds": round(facts["target_seconds"], 3),
        "metrics": facts["metrics"],
    }


def _after_ctrl_c(options: argparse.Namespace) -> str:
    """How to continue."""
    if "out" not in options:
        return "nothing was written"
    out = options.out
    if out is None:
        return "with --out DIR, a run can be resumed"
    if has_checkpoint(out):
        return f"python -m pd_helpers resume {shlex.quote(out)} continues from there"
    return "there was no checkpoint yet, so run it again"


def key_and_value(text: str) -> tuple[str, Any]:
    """The field and the value that --set KEY=VALUE means."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ValueError(f"--set takes KEY=VALUE, but got {shown(text)}; C=30 works")
    words = {"none": None, "true": True, "false": False}
    if value.lower() in words:
        return key, words[value.lower()]
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, value


if __name__ == "__main__":
    try:
        code = main()
    except SystemExit as wrong:  # what was typed
        code = wrong.code
    end(code)
