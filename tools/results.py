"""The tables of results in README.md, made from what is shipped and from what the notebooks print.

    python tools/results.py            writes them between <!-- results NAME --> and <!-- /results NAME -->
    python tools/results.py --check    says what does not agree, and fails then

So every number there has a source: a shipped run's metrics (pd_helpers/shipped/manifest.json), a shipped sweep, or the
tables at the ends of notebooks 07 and 13, which are over several seeds that are trained there.
"""

import html
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import badges
from course_files import Parser
from scipy.stats import binomtest

from pd_helpers.analysis import metrics
from pd_helpers.runs import shipped
from pd_helpers.runs.presets import preset

ROOT = Path(__file__).resolve().parents[1]
NO = "–"


def manifest() -> dict[tuple[str, str], dict[str, Any]]:
    """(experiment, variant) → what the manifest says of that shipped run."""
    return {(run["name"], run["variant"]): run for run in shipped.manifest()["runs"]}


def printed(notebook: str, *words: str) -> list[list[str]]:
    """The rows of the first table among a notebook's outputs that has all of these words; ValueError if none does."""
    cells = json.loads((ROOT / f"notebooks/{notebook}.ipynb").read_text())["cells"]
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        text = "".join(output.get("data", {}).get("text/html", []))
        if "<table" in text and all(word in text for word in words):
            rows = re.findall(r"<tr.*?>(.*?)</tr>", text, re.S)
            return [[html.unescape(cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.S)] for row in rows]
    raise ValueError(f"no table of notebook {notebook} has {', '.join(words)}")


def toy_models() -> Iterable[Iterable[str]]:
    """MMCS and ML2R of Table 1 of both papers."""
    yield "experiment", "MMCS, paper", "here", "ML2R, paper", "here", "alive", "seeds", "seconds a run"
    of_apd = printed("07_apd_superposition", "seeds here", "40 features in 10")
    of_spd = {row[0]: row[1:] for row in printed("13_spd_superposition", "spd/tms_40-10_id", "alive in embed")}
    names = of_spd[""]
    for size, label in (("5-2", "5 features in 2"), ("40-10", "40 features in 10")):
        start = next(i for i, row in enumerate(of_apd) if row[0] == label)
        (*_, paper, here, seeds), (*_, paper_length, length, _) = of_apd[start : start + 2]
        name = f"apd/tms_{size}"
        alive = sorted(run["metrics"]["n_alive"]["embed"] for run in _of(name))
        which = ", ".join(map(str, alive if len(set(alive)) > 1 else alive[:1]))
        yield f"`{name}`", paper, here, paper_length, length, which, seeds, _seconds(name)
    for name in names:
        column = {label: values[names.index(name)] for label, values in of_spd.items() if len(values) == len(names)}
        alive = column["alive in embed"]
        if column["alive in identity"] != NO:
            alive += f", identity {column['alive in identity']}"
        length, of_alive = column["ML2R"], column["ML2R, alive only"]
        lengths = column["paper's ML2R"], length if length == of_alive else f"{length}, alive only {of_alive}"
        yield f"`{name}`", column["paper's MMCS"], column["MMCS"], *lengths, alive, column["seeds"], _seconds(name)
    for (name, _), run in manifest().items():
        if name.startswith("apd/tms") and name.endswith("_id"):
            measured = run["metrics"]
            alive = str(measured["n_alive"]["embed"])
            scores = "fails", f"{measured['mmcs']:.3f}", "fails", f"{measured['ml2r']:.3f}"
            yield f"`{name}`", *scores, alive, "1", _seconds(name)


def apd_residual() -> Iterable[Iterable[str]]:
    """APD's figures 8 and 25."""
    yield (
        *("experiment, seed 0", "top-k, paper", "here", "scrubbed, paper", "here", "anti-scrubbed, paper", "here"),
        *("monosemantic, paper", "here", "all on", "features with a component of their own", "minutes"),
    )
    for name, variant, label in (
        ("apd/resid_mlp_1", "seed0", ""),
        ("apd/resid_mlp_1_rank4", "seed0", ""),
        ("apd/resid_mlp_2", "seed0", ""),
        ("apd/resid_mlp_2", "top_k1", "the same at top-k 1"),
        ("apd/resid_mlp_2", "rank2", "the same at rank 2"),
        ("apd/resid_mlp_2_rank1", "seed0", ""),
    ):
        run = manifest()[name, variant]
        measured, published = run["metrics"], preset(name).published if variant == "seed0" else {}
        pairs: list[str] = []
        for kind in ("topk_mse", "scrubbed_mse", "anti_scrubbed_mse", "monosemantic_mse"):
            pairs += [_units(published[kind][0]) if kind in published else NO, _units(measured[kind])]
        own, minutes = f"{measured['n_own']} of 100", f"{run['seconds'] / 60:.0f}"
        yield label or f"`{name}`", *pairs, _units(measured["unmasked_recon"]), own, minutes


def spd_residual() -> Iterable[Iterable[str]]:
    """SPD's figures 6, 12 and 13."""
    yield (
        *("experiment", "seed", "r of contributions, paper", "here", "alive on the data: W_in", "W_out"),
        *("entries off the pattern", "error, random masks", "important ones only", "all on", "minutes"),
    )
    for (name, variant), run in manifest().items():
        if not name.startswith("spd/resid") or not variant.startswith("seed"):
            continue
        measured = run["metrics"]
        alive = [
            ", ".join(str(n) for use, n in measured["n_alive"].items() if use.endswith(kind)) for kind in ("in", "out")
        ]
        errors = [_units(measured[kind]) for kind in ("recon", "rounded_recon", "unmasked_recon")]
        r = f"{preset(name).published['contribution_r'][0]:.3f}", f"{measured['contribution_r']:.3f}"
        off = str(measured["identity_ci_error"])
        yield f"`{name}`", str(run["seed"]), *r, *alive, off, *errors, f"{run['seconds'] / 60:.0f}"


def own_settings() -> Iterable[Iterable[str]]:
    """Experiments at the paper's own settings: in how many seeds every feature, or function, has a component."""
    yield "experiment", "seeds", "complete", "MMCS of the complete ones, paper", "here", "ML2R, paper", "here"
    for sweep in shipped.manifest()["sweeps"]:
        if sweep["variant"] != "paper":
            continue
        name, table = sweep["name"], shipped.shipped_sweep(sweep["name"], "paper")
        whole, published = table[table.apply(_is_complete, axis=1)], preset(name).published
        scores = []
        for metric in ("mmcs", "ml2r"):
            given = f"{published[metric][0]:.3f}" if metric in published else NO
            scores += [given, f"{whole[metric].mean():.3f}" if len(whole) and metric in published else NO]
        yield f"`{name}`", str(len(table)), str(len(whole)), *scores


def rates() -> Iterable[Iterable[str]]:
    """In how many seeds of the toy models every feature ends with a component of its own, with 95% intervals."""
    yield "experiment, seeds that are complete", "of", "one initialisation", "best of three"
    for sweep in shipped.manifest()["sweeps"]:
        if sweep["variant"] == "rates":
            table = shipped.shipped_sweep(sweep["name"], "rates")
            complete = table.apply(_is_complete, axis=1)
            groups = [complete[table["n_init"] == n] for n in (1, 3)]
            yield f"`{sweep['name']}`", str(len(groups[0])), *(_rate(int(group.sum()), len(group)) for group in groups)


def _rate(k: int, n: int) -> str:
    """A number of successes, and the interval (Wilson's) that their rate lies in with 95% confidence."""
    low, high = binomtest(k, n).proportion_ci(method="wilson")
    return f"{k} ({low:.0%} to {high:.0%})"


def _is_complete(row: Any) -> bool:
    """Whether each column of W has a component of its own, or each hand-written function one that computes it alone."""
    if "n_served" in row:
        return row["n_served"] == 4
    kept = row["kept"]
    if "own" in kept:  # of a sweep that counts
        return int(kept["own"]) == len(kept["cosines"])
    return metrics.own_columns(kept["P.embed"], kept["W.embed"]) == kept["W.embed"].shape[1]


def gated() -> Iterable[Iterable[str]]:
    """How many functions of the hand-written network have a component that computes them alone."""
    table = shipped.shipped_sweep("apd/gated", "seeds")
    seeds = Counter(table["n_served"])
    yield "functions with a component of their own", *(f"{n} of 4" for n in range(5))
    yield f"`apd/gated`, of {len(table)} seeds", *(str(seeds[n]) for n in range(5))


def attacked() -> Iterable[Iterable[str]]:
    """Errors of decompositions of the same networks under the same attacks."""
    yield "experiment", "L0, all uses", "random masks", "shared attack", "attack per input", "everything off"
    table = shipped.shipped_sweep("vpd/tms_5-2", "ladders")
    last = table["steps"].max()
    for name, rows in table.groupby("run", sort=False):
        error = rows.set_index(["scope", "steps"])["attacked"]
        found = error["shared", 0], error["shared", last], error["per input", last], rows["scale"].iloc[0]
        yield f"`{name.split(':')[0]}`", f"{rows['l0'].iloc[0]:.2f}", *map(_units, found)


def held_out() -> Iterable[Iterable[str]]:
    """VPD on seeds that had no part in choosing its settings, one initialisation each."""
    yield "experiment", "seeds", "MMCS", "ML2R", "complete", "5 alive in each use"
    table = shipped.shipped_sweep("vpd/tms_5-2", "held_out")
    alive = ((table["n_alive.embed"] == 5) & (table["n_alive.unembed"] == 5)).sum()
    scores = (f"{table[name].mean():.3f} ± {table[name].std():.3f}" for name in ("mmcs_alive", "ml2r_alive"))
    complete = table.apply(_is_complete, axis=1).sum()
    yield "`vpd/tms_5-2`", str(len(table)), *scores, _rate(int(complete), len(table)), str(alive)


def induction() -> Iterable[Iterable[str]]:
    """The induction head decomposed, over the seeds that are shipped, and what attacks on it reach."""
    yield (
        "experiment, mean of 3 seeds",
        "right, the network",
        "right, important pieces alone",
        "L0 at a position, 8 matrices",
        "alive of 240",
        "right under random masks",
        "right under a shared attack",
        "minutes",
    )
    table = shipped.shipped_sweep("vpd/induction", "ladders")
    table = table[table["scope"] == "shared"]
    for name in ("spd/induction", "vpd/induction"):
        runs = [run["metrics"] for run in _of(name)]
        of_method = table[[run.startswith(name) for run in table["run"]]]
        right = of_method.groupby("steps")["accuracy"]
        yield (
            f"`{name}`",
            f"{fmean(run['accuracy'] for run in runs):.3f}",
            f"{fmean(run['rounded_accuracy'] for run in runs):.3f}",
            f"{fmean(sum(run['l0'].values()) for run in runs):.2f}",
            f"{fmean(sum(run['n_alive'].values()) for run in runs):.0f}",
            f"{right.mean()[0]:.3f}",
            f"{right.min()[right.mean().index[-1]]:.3f} to {right.max()[right.mean().index[-1]]:.3f}",
            f"{float(_seconds(name)) / 60:.1f}",
        )


def _of(name: str) -> list[dict[str, Any]]:
    return [run for (other, variant), run in manifest().items() if other == name and variant.startswith("seed")]


def _seconds(name: str) -> str:
    """Mean over the seeds that are shipped."""
    seconds = [run["seconds"] for run in _of(name)]
    return f"{sum(seconds) / len(seconds):.0f}"


def _units(error: float) -> str:
    """An error in units of 10⁻⁴, with three digits, or two of a small one."""
    value = error * 1e4
    return f"{value:.3g}" if value >= 0.1 else f"{value:.2g}"


TABLES: Mapping[str, Callable[[], Iterable[Iterable[str]]]] = {
    "toy models": toy_models,
    "apd residual": apd_residual,
    "spd residual": spd_residual,
    "own settings": own_settings,
    "rates": rates,
    "gated": gated,
    "held out": held_out,
    "attacked": attacked,
    "induction": induction,
}


def filled(text: str) -> str:
    """README.md with its tables as they should be; ValueError, which names it, for a table that has no place there."""
    for name, table in TABLES.items():
        head, *rows = ([*row] for row in table())
        if f"<!-- results {name} -->" not in text:
            raise ValueError(f"README.md has no <!-- results {name} -->")
        lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
        text = badges.fill_block(text, f"results {name}", "\n".join(lines))
    return text


def main(arguments: list[str] | None = None) -> int:
    """See the top of this file."""
    parser = Parser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a table does not agree")
    options = parser.parse_args(arguments)
    readme = ROOT / "README.md"
    before = readme.read_text()
    after = filled(before)
    if before == after:
        return 0
    if options.check:
        pairs = zip(before.splitlines(), after.splitlines(), strict=False)
        wrong = next(now for then, now in pairs if then != now)
        print(f"README.md does not agree with what is shipped: {wrong!r} is missing; python tools/results.py mends it")
        return 1
    readme.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
