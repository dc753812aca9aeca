"""The command line: `python -m pd_helpers list` and `python -m pd_helpers run NAME`.

Progress goes to stderr; the last line on stdout is one JSON object. Exit code 2 means bad input.
"""

import argparse
import json
import sys
from typing import Any

import pd_helpers as pdh
from pd_helpers.runs import check_new_folder


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pd_helpers", description="Decompose a network's parameters.")
    commands = parser.add_subparsers(dest="command", required=True)

    listing = commands.add_parser("list", help="show the experiments")
    listing.add_argument("--json", action="store_true", help="as one JSON object, settings included")

    run = commands.add_parser("run", help="train a target and decompose it")
    run.add_argument("name", help="an experiment, such as apd/tms_5-2")
    run.add_argument("--seed", type=int, default=0, help="seed of target, initial factors, data and masks (default 0)")
    run.add_argument("--steps", type=int, help="training steps of the decomposition")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default auto)")
    run.add_argument("--out", metavar="DIR", help="write the run to this new folder")
    run.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override a field, such as simplicity_coeff=0.1",
    )
    options = parser.parse_args(arguments)
    try:
        return _list(options) if options.command == "list" else _run(options)
    except (ValueError, TypeError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _list(options: argparse.Namespace) -> int:
    if options.json:
        presets = {
            name: {
                "source": p.source,
                "target": p.target.to_dict(),
                "config": p.config.to_dict(),
                "published": p.published,
                "differs": p.differs,
            }
            for name, p in pdh.PRESETS.items()
        }
        print(json.dumps(presets))
        return 0
    width = max(map(len, pdh.PRESETS))
    for name, p in pdh.PRESETS.items():
        size = f"{p.target.n_features} features in {p.target.n_hidden} dimensions, C {p.config.C}"
        print(f"{name:{width}}  {size}; {p.source}")
    return 0


def _run(options: argparse.Namespace) -> int:
    overrides = dict(_key_and_value(text) for text in options.set)
    if options.steps is not None:
        overrides["steps"] = options.steps
    if options.out is not None:
        check_new_folder(options.out)
    run = pdh.run(options.name, options.seed, device=options.device, **overrides)
    if options.out is not None:
        run.save(options.out)
    print(
        json.dumps(
            {
                "experiment": run.name,
                "seed": run.seed,
                "device": run.device,
                "steps": run.config.steps,
                "seconds": round(run.seconds, 3),
                "target_seconds": round(run.target_seconds, 3),
                "metrics": run.metrics,
            }
        )
    )
    return 0


def _key_and_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ValueError(f"--set takes KEY=VALUE, but got {text!r}; C=30 works")
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
    sys.exit(main())
