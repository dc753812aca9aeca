"""Bad calls: each is refused with one sentence that names the argument, before any work, and changes nothing."""

import importlib
import inspect
import itertools
import os
import random
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import hypothesis
import numpy as np
import pandas
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

import pd_helpers as pdh
from pd_helpers import plots, widgets
from pd_helpers.core.apd import APD
from pd_helpers.core.method import Method
from pd_helpers.core.spd import SPD
from pd_helpers.targets.base import TargetTraining

pytestmark = pytest.mark.usefixtures("as_a_user", "no_training")
PACKAGE = str(Path(pdh.__file__).parent)
HUGE = 10**12
QUICK = {"target_steps": 2, "batch_size": 16, "target_batch_size": 16, "warm_up": False, "show_progress": False}
SMALL = {"n_features": 8, "d_mlp": 4, "d_resid": 9, "C": 9}
RUNS: dict[str, pdh.Run] = {}


NETWORKS = {
    pdh.TMS: {"n_features": 5, "n_hidden": 2},
    pdh.ResidualMLP: {"n_features": 5, "d_resid": 6, "d_mlp": 4, "n_layers": 1},
    pdh.GatedNetwork: {"n_functions": 2, "n_neurons": 4, "n_layers": 2},
    pdh.InductionNetwork: {"vocabulary": 8, "length": 9, "d_model": 8, "n_heads": 1, "n_layers": 2},
    pdh.PingPong: {"n_groups": 2, "n_circuits": 3},
}


class Odd:
    """A value that no argument takes."""


@pytest.fixture(scope="module")
def runs():
    """Decompositions at step 0, of every kind."""
    RUNS["apd"] = pdh.prepare("apd/tms_5-2", **QUICK)
    RUNS["spd"] = pdh.prepare("spd/tms_5-2", **QUICK)
    RUNS["apd mlp"] = pdh.prepare("apd/resid_mlp_1", **QUICK, **SMALL)
    RUNS["spd mlp"] = pdh.prepare("spd/resid_mlp_1", **QUICK, **SMALL)


@pytest.fixture
def no_training(runs, monkeypatch):
    """Work that a bad call must never reach."""

    def work(*_):
        pytest.fail("a bad call began to train")

    for kind, name in ((TargetTraining, "steps"), (APD, "train"), (SPD, "train"), (Method, "warm_up")):
        monkeypatch.setattr(kind, name, work)


NETWORK = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def data(n, generator):
    return torch.rand(n, 3, generator=generator)


def fit(**given):
    arguments = {
        "target": NETWORK,
        "config": pdh.SPDConfig(C=3, steps=2, batch_size=8),
        "data": data,
        "layers": ["0"],
    }
    return pdh.fit(**{**arguments, "show_progress": False, **given})


def fit_with(kind=pdh.SPDConfig, layers=("0",), **fields):
    return fit(config=kind(**{"C": 3, "steps": 2, "batch_size": 8, **fields}), layers=list(layers))


def subcomponents(run, x, labels):
    return widgets.SubcomponentLab(RUNS[run], x, labels.long())


def sweep(grid=None, **options):
    return pdh.sweep("apd/tms_5-2", {"seed": [0]} if grid is None else grid, show_progress=False, **options)


def run(name="apd/tms_5-2", **options):
    return pdh.run(name, show_progress=False, **options)


class Call(NamedTuple):
    """A bad call, and the argument that its error must name."""

    argument: str
    make: Callable[[], object]


def ax():
    return plots.figure(4, 3)[1][0, 0]


def state() -> tuple:
    """All that a call could change behind one's back."""
    numbers = torch.random.get_rng_state().numpy().tobytes(), random.getstate(), np.random.get_state()[1].tobytes()
    settings = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    return *numbers, *settings, sorted(os.listdir())


def assert_refused(call: Call) -> None:
    """The call raises one sentence of ours, and changes nothing."""
    before = state()
    with pytest.raises((ValueError, TypeError)) as raised:
        call.make()
    message = str(raised.value)
    last = traceback.extract_tb(raised.value.__traceback__)[-1]
    assert last.filename.startswith(PACKAGE), f"raised in {last.filename}: {message}"
    assert re.search(rf"(?<!\w){re.escape(call.argument)}(?!\w)", message), message
    assert re.search(r"\b(must|works?|unknown|leave|no|names|shipped|so)\b", message), message
    assert "\n" not in message
    assert len(message) < 700
    assert not re.search(r"object is not|has no attribute|unsupported operand|got multiple|alloc|0x|Traceback", message)
    assert state() == before


# --- The corpus -------------------------------------------------------------------------------------------

CALLS = {
    # arguments of the wrong kind
    **{f"run name {v!r}": Call("name", lambda v=v: pdh.run(v)) for v in (["a"], None, 3, b"apd/tms_5-2", ("a",), {})},
    **{f"preset name {v!r}": Call("name", lambda v=v: pdh.preset(v)) for v in (["a"], None, 3, {})},
    "run unknown": Call("experiment", lambda: run("apd/tms_5_2")),
    "run long": Call("experiment", lambda: run("x" * 10_000)),
    "run newline": Call("experiment", lambda: run("apd\n")),
    "run unknown field": Call("simplicity_coef", lambda: run(simplicity_coef=1)),
    "run without name": Call("name", lambda: pdh.run()),
    **{f"shipped {v!r}": Call("name", lambda v=v: pdh.shipped(v)) for v in (None, 3, ["spd/tms_5-2"])},
    **{f"sweep shipped {v!r}": Call("name", lambda v=v: pdh.shipped_sweep(v)) for v in (None, 3)},
    "shipped unknown": Call("shipped", lambda: pdh.shipped("x" * 1000)),
    "shipped variant": Call("variant", lambda: pdh.shipped("apd/tms_5-2", 3)),
    "shipped elsewhere": Call("variant", lambda: pdh.shipped("apd/tms_5-2", "../..")),
    **{f"show {v!r}": Call("fig", lambda v=v: pdh.show(v, "words")) for v in (None, "fig", 3)},
    "show without words": Call("alt", lambda: pdh.show(None)),
    **{f"end_state {v!r}": Call("run", lambda v=v: pdh.end_state(v)) for v in (3, None, "run")},
    **{f"paper {v!r}": Call("paper", lambda v=v: run(paper=v)) for v in (1, "no", None)},
    **{f"show_progress {v!r}": Call("show_progress", lambda v=v: fit(show_progress=v)) for v in ("no", 1, None)},
    "warm_up": Call("warm_up", lambda: pdh.prepare("apd/tms_5-2", warm_up=2)),
    **{f"out {v!r}": Call("out", lambda v=v: run(out=v)) for v in (3, ["out"])},
    **{
        f"target {type(v).__name__}": Call("target", lambda v=v: run(target=v))
        for v in ({}, pdh.TMS, "x", torch.zeros(3), Path("x"), NETWORK, len)
    },
    **{f"fit target {v!r}": Call("target", lambda v=v: fit(target=v)) for v in (None, "x", {}, pdh.TMS, 3)},
    **{f"config {v!r}": Call("config", lambda v=v: fit(config=v)) for v in (None, pdh.SPDConfig, {"C": 3}, "spd")},
    "config of a target": Call("config", lambda: fit(config=pdh.TMSConfig())),
    **{f"data {i}": Call("data", lambda v=v: fit(data=v)) for i, v in enumerate((None, 3, [1], "x"))},
    "data loader": Call("data", lambda: fit(data=torch.utils.data.DataLoader([1]))),
    "data without arguments": Call("data", lambda: fit(data=lambda: 0)),
    **{f"layers {v!r}": Call("layers", lambda v=v: fit(layers=v)) for v in (True, "0", [1], {1: 2}, 3)},
    "layers unknown": Call("layer", lambda: fit(layers=["nowhere"])),
    "layers empty": Call("C", lambda: fit(layers=[])),
    "layers of halves": Call("C['0']", lambda: fit(layers={"0": 2.5})),
    # seeds and devices
    **{
        f"{name} seed {v!r}": Call("seed", lambda v=v, call=call: call(seed=v))
        for name, call in {"run": run, "fit": fit}.items()
        for v in (-1, 2**61, 2**62, 2**200, 858_993_459, 0.5, "1", None, True, [0], torch.zeros(2))
    },
    "sweep seed": Call("seed", lambda: sweep({"seed": [0, 2**61]})),
    "target_seed": Call("target_seed", lambda: run(target_seed=2**40)),
    "make_target seed": Call("seed", lambda: pdh.make_target(pdh.TMSConfig(), 2**61)),
    **{
        f"device {v!r}": Call("device", lambda v=v: fit(device=v))
        for v in (None, 3, "", "tpu", "cuda:999", "cuda:x", "CPU", torch.device("meta"), torch.device("cuda:999"))
    },
    "make_target device": Call("device", lambda: pdh.make_target(pdh.TMSConfig(), device="tpu")),
    "make_target config": Call("config", lambda: pdh.make_target(pdh.TMSConfig)),
    # sizes that no machine holds
    **{
        f"{name} {field}": Call(field, lambda name=name, field=field: run(name, **{field: HUGE}))
        for name, fields in {
            "apd/tms_5-2": "C batch_size target_batch_size n_features n_hidden n_init rank",
            "spd/tms_5-2_id": "C batch_size target_batch_size n_features n_hidden n_init d_gate",
            "apd/resid_mlp_1": "C batch_size target_batch_size n_features d_mlp d_resid n_layers n_init rank",
            "spd/resid_mlp_2": "C batch_size n_features d_mlp d_resid n_layers n_init d_gate",
            "apd/gated": "C batch_size n_functions n_neurons n_layers n_init",
        }.items()
        for field in fields.split()
    },
    **{f"C 10^{n}": Call("C", lambda n=n: run(C=10**n)) for n in (12, 18, 30, 300, 5000)},
    "steps": Call("steps", lambda: run(steps=10**30)),
    **{f"fit {field}": Call(field, lambda f=field: fit_with(**{f: HUGE})) for field in ("C", "batch_size", "n_init")},
    "fit d_gate": Call("d_gate", lambda: fit_with(d_gate=HUGE)),
    "fit C of a layer": Call("C", lambda: fit(layers={"0": HUGE})),
    "sweep C": Call("C", lambda: sweep({"C": [5, HUGE]})),
    **{
        f"{kind.__name__} {field} {v!r}": Call(field, lambda kind=kind, given=sizes | {field: v}: kind(**given))
        for kind, sizes in NETWORKS.items()
        for field in sizes
        for v in (10**12, 10**30, 0, -1, 2.5, "5", None, True)
    },
    "make_target n_hidden": Call("n_hidden", lambda: pdh.make_target(pdh.TMSConfig(n_hidden=HUGE))),
    "make_target d_resid": Call("d_resid", lambda: pdh.make_target(pdh.ResidualMLPConfig(d_resid=HUGE))),
    # settings that cannot mean anything
    **{
        f"{field} {v!r}": Call(field, lambda field=field, v=v: run(**{field: v}))
        for field, values in {
            "top_k": (77, 1e-12, 1e-5, 0, -1, 1e300, "1", float("nan")),
            "top_k_start": (77, 1e-12),
            "rank": (4, 10**6, 0, 1.5, "full"),
            "lr": (1e-320, 1e-12, 1e300, 0, float("inf"), None, [0.1]),
            "simplicity_coeff": (1e300, 1e-300, -1, None),
            "init_std": (1e300, 1e-300, 0),
            "attribution_p": (1e-30, 5),
            "schatten_p": (1e-30, 5),
            "warmup_fraction": (1.5, -0.1, 1e-300),
            "feature_probability": (1e-30, 1.5, -1),
            "target_weight_decay": (1e9,),
            "target_lr": (1e-320,),
            "schedule": ("linear", None, 3),
            "identity": ("yes", 1, None),
            "unit_norm": (0,),
        }.items()
        for v in values
    },
    "fit rank": Call("rank", lambda: fit_with(pdh.APDConfig, rank=5, top_k=1)),
    "fit top_k": Call("top_k", lambda: fit(config=pdh.APDConfig(C=30, top_k=8), layers={"0": 3})),
    # sweeps
    **{f"grid {v!r}": Call("grid", lambda v=v: sweep(v)) for v in ({}, [], "seed", 3, {1: [2]}, {None: [1]})},
    "grid endless": Call("grid", lambda: sweep({"seed": itertools.count()})),
    "grid too large": Call("grid", lambda: sweep({"seed": range(10**5), "lr": range(1, 10**4)})),
    "grid used up": Call("grid['seed']", lambda: sweep({"seed": iter(())})),
    "grid of a number": Call("grid['lr']", lambda: sweep({"lr": 0.1})),
    "grid of a text": Call("grid['schedule']", lambda: sweep({"schedule": "cosine"})),
    "grid and override": Call("lr", lambda: sweep({"lr": [0.1]}, lr=0.2)),
    "sweep without grid": Call("grid", lambda: pdh.sweep("apd/tms_5-2")),
    **{f"n_jobs {v!r}": Call("n_jobs", lambda v=v: sweep(n_jobs=v)) for v in (0, 1.5, "2", True, 10**30, [1])},
    **{f"keep {v!r}": Call("keep", lambda v=v: sweep(keep=v)) for v in (3, "U", {})},
    # labs and pictures whose arguments are of the right kind and yet not usable
    "AttributionLab empty": Call("cuts", lambda: widgets.AttributionLab(RUNS["apd"].target, {})),
    "PriceLab empty": Call("runs", lambda: widgets.PriceLab({})),
    "LayersLab empty": Call("runs", lambda: widgets.LayersLab({})),
    "SharingLab empty": Call("runs", lambda: widgets.SharingLab({}, {}, "top-k")),
    "PriceLab apd": Call("runs", lambda: widgets.PriceLab({1e-5: RUNS["apd"]})),
    "PriceLab untrained": Call("runs", lambda: widgets.PriceLab({1e-5: RUNS["spd mlp"]})),
    "LayersLab toy": Call("runs", lambda: widgets.LayersLab({"one": RUNS["spd"]})),
    "AblationLab toy": Call("run", lambda: widgets.AblationLab(RUNS["apd"])),
    "FeatureLab spd": Call("run", lambda: widgets.FeatureLab(RUNS["spd mlp"])),
    "GuessLab mixed up": Call("apd_run", lambda: widgets.GuessLab(RUNS["spd"], RUNS["apd"])),
    "LpLab top-k": Call("run", lambda: widgets.LpLab(RUNS["apd"])),
    "RoomLab apd": Call("run", lambda: widgets.RoomLab(RUNS["apd"])),
    "ShrinkageLab untrained": Call("run", lambda: widgets.ShrinkageLab(RUNS["apd"])),
    "ShrinkageLab mlp": Call("run", lambda: widgets.ShrinkageLab(RUNS["apd mlp"])),
    "SubcomponentLab apd": Call("run", lambda: subcomponents("apd", torch.ones(4, 5), torch.zeros(4))),
    "SubcomponentLab width": Call("x", lambda: subcomponents("spd", torch.ones(4, 9), torch.zeros(4))),
    "SubcomponentLab labels": Call("labels", lambda: subcomponents("spd", torch.ones(4, 5), torch.zeros(3))),
    "SubcomponentLab classes": Call("labels", lambda: subcomponents("spd", torch.ones(1, 5), torch.tensor([9]))),
    "MaskLab draws": Call("n_draws", lambda: widgets.MaskLab(RUNS["apd"].target, n_draws=HUGE)),
    "MaskLab beta": Call("beta_3", lambda: widgets.MaskLab(RUNS["apd"].target, beta_3=float("nan"))),
    "SchattenLab seed": Call("seed", lambda: widgets.SchattenLab(seed=10**30)),
    "TermsLab seed": Call("seed", lambda: widgets.TermsLab(torch.ones(2, 3), seed=-1)),
    "TermsLab nan": Call("W", lambda: widgets.TermsLab(torch.full((2, 3), torch.nan))),
    "SparsityLab sizes": Call("config", lambda: widgets.SparsityLab(pdh.TMSConfig(n_hidden=3))),
    "MixingLab empty": Call("by_sigma", lambda: widgets.MixingLab(pandas.DataFrame(), pandas.DataFrame())),
    "GatedLab empty": Call("sweep", lambda: widgets.GatedLab(pandas.DataFrame())),
    "DescriptionLengthLab empty": Call("active", lambda: widgets.DescriptionLengthLab(torch.zeros(0, 3))),
    "columns of 3": Call("W", lambda: plots.columns(ax(), torch.zeros(3, 4))),
    "matrix of one": Call("W", lambda: plots.matrix(ax(), torch.zeros(3))),
    "outputs unequal": Call("target", lambda: plots.outputs(ax(), torch.zeros(3), torch.zeros(4))),
    "decomposition mlp": Call("run", lambda: plots.decomposition(RUNS["apd mlp"])),
    "figure of nothing": Call("rows", lambda: plots.figure(4, 3, 0)),
    "figure negative": Call("width", lambda: plots.figure(-4, 3)),
    "losses without step": Call("history", lambda: plots.losses(ax(), pandas.DataFrame({"a": [1]}))),
    "halves of nothing": Call("additions", lambda: plots.halves({}, 0)),
    "order beyond": Call("order", lambda: plots.importances(ax(), torch.zeros(3, 4), order=[9])),
    "grid of nothing": Call("columns", lambda: plots.importance_grid([])),
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_call_is_refused(name):
    assert_refused(CALLS[name])


def shown_to_readers() -> dict[str, Callable]:
    """Every lab, and every public function that draws or helps to."""
    named = {name: getattr(widgets, name) for name in widgets.__all__}
    named |= {name: getattr(plots, name) for name in plots.__all__}
    for topic, names in plots.ROOMS.items():
        room = importlib.import_module(f"pd_helpers.course.{topic}.plots")
        named |= {f"{topic} {name}": getattr(room, name) for name in names}
    return {name: value for name, value in named.items() if inspect.isfunction(value) or inspect.isclass(value)}


def firsts() -> dict[str, tuple[Callable, str, object]]:
    """Each of them with None, a text and an odd thing as its first argument, where these are not what it takes."""
    cases = {}
    for name, function in shown_to_readers().items():
        for parameter in itertools.islice(inspect.signature(function).parameters.values(), 1):
            kind = str(parameter.annotation)
            for value in (None, "text", Odd()):
                takes = parameter.annotation is str if isinstance(value, str) else value is None and "None" in kind
                if not takes:
                    cases[f"{name} {type(value).__name__}"] = function, parameter.name, value
    return cases


FIRSTS = firsts()


def test_the_corpus_is_large():
    assert len(CALLS) >= 250
    assert len(FIRSTS) >= 150


@pytest.mark.parametrize("name", FIRSTS)
def test_labs_and_pictures_refuse_what_is_of_another_kind(name):
    function, argument, value = FIRSTS[name]
    others = {
        parameter.name: None
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty and parameter.name != argument
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    is_many = inspect.signature(function).parameters[argument].kind is inspect.Parameter.VAR_POSITIONAL
    assert_refused(Call(argument, lambda: function(value) if is_many else function(**{argument: value}, **others)))


# --- Drawn at random --------------------------------------------------------------------------------------

NO_NUMBERS = st.one_of(
    st.none(), st.text(max_size=20), st.binary(max_size=5), st.lists(st.integers(), max_size=3), st.builds(Odd),
    st.booleans(), st.complex_numbers(), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
NO_SIZES = st.one_of(
    NO_NUMBERS.filter(lambda value: value is not None), st.integers(max_value=0), st.integers(min_value=10**13),
    st.floats(max_value=0), st.floats(min_value=0.01, max_value=0.99), st.just(float("nan")), st.just(float("inf")),
)  # fmt: skip
NO_COEFFICIENTS = st.one_of(
    NO_NUMBERS,
    st.floats(max_value=-1e-300),
    st.floats(min_value=1e31),
    st.just(float("nan")),
    st.integers(max_value=-1),
)
NO_SEEDS = st.one_of(NO_NUMBERS, st.integers(max_value=-1), st.integers(min_value=858_993_459), st.floats())
NO_TEXTS = st.one_of(st.integers(), st.floats(), st.none(), st.lists(st.text(max_size=3), max_size=3), st.builds(Odd))
NO_FLAGS = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.floats(), st.builds(Odd))
DRAWN: dict[str, tuple[str, Callable, st.SearchStrategy]] = {
    "name": ("name", lambda v: pdh.run(v), NO_TEXTS),
    "seed": ("seed", lambda v: run(seed=v), NO_SEEDS),
    "seed of fit": ("seed", lambda v: fit(seed=v), NO_SEEDS),
    "seed in a grid": ("seed", lambda v: sweep({"seed": [v]}), NO_SEEDS),
    "paper": ("paper", lambda v: run(paper=v), NO_FLAGS),
    "show_progress": ("show_progress", lambda v: fit(show_progress=v), NO_FLAGS),
    "device": ("device", lambda v: fit(device=v), st.one_of(NO_NUMBERS, st.integers())),
    "data": ("data", lambda v: fit(data=v), NO_NUMBERS),
    "target": ("target", lambda v: fit(target=v), NO_NUMBERS),
    "config": ("config", lambda v: fit(config=v), NO_NUMBERS),
    "shipped": ("name", lambda v: pdh.shipped(v), NO_TEXTS),
    "grid": ("grid", lambda v: sweep(v), st.one_of(st.integers(), st.text(), st.builds(Odd), st.just({}))),
    "keys": ("grid", lambda v: sweep({v: [1]}), st.one_of(st.integers(), st.floats(allow_nan=False), st.none())),
    "run": ("run", lambda v: pdh.end_state(v), NO_NUMBERS),
    **{
        field: (field, lambda v, field=field: run("spd/tms_5-2", **{field: v}), NO_SIZES)
        for field in ("C", "batch_size", "steps", "n_init", "d_gate", "target_steps", "n_features", "n_hidden")
    },
    **{
        field: (field, lambda v, field=field: run("spd/tms_5-2", **{field: v}), NO_COEFFICIENTS)
        for field in ("lr", "recon_coeff", "importance_coeff", "importance_p", "feature_probability", "target_lr")
    },
}


@pytest.mark.parametrize("name", DRAWN)
@hypothesis.given(st.data())
@hypothesis.settings(
    max_examples=8, deadline=None, derandomize=True, database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.filter_too_much],
)  # fmt: skip
def test_whatever_is_no_value_of_an_argument_is_refused(name, drawn):
    argument, call, values = DRAWN[name]
    value = drawn.draw(values)
    assert_refused(Call(argument, lambda: call(value)))
