"""Sweeps: one tidy row per run, whatever runs them, and errors that come before the work or stay in their row."""

import itertools
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import pandas as pd
import pytest
import torch
from networks import MLP

import pd_helpers as pdh
from pd_helpers.runs import api, sweeps
from pd_helpers.runs.sweeps import flat

QUICK = {"steps": 10, "target_steps": 20, "n_init": 1, "batch_size": 64, "faithfulness_warmup_steps": 0}
GRID = {"simplicity_coeff": [0.7, 0.1], "seed": range(2)}
POINTS = list(itertools.product(GRID["simplicity_coeff"], GRID["seed"]))
pytestmark = pytest.mark.usefixtures("as_a_user")


def sweep(grid=GRID, name="apd/tms_5-2", **options):
    return pdh.sweep(name, grid, **{"show_progress": False, **QUICK, **options})


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr(sweeps, "_all", lambda *_: pytest.fail("work was started"))


@pytest.fixture(scope="module")
def table():
    return sweep(keep=lambda run: {path: layer.P.detach() for path, layer in run.components.layers.items()})


def test_one_row_per_run_in_the_order_of_the_grid(table):
    assert list(zip(table["simplicity_coeff"], table["seed"], strict=True)) == POINTS
    numbers = ["mmcs", "ml2r", "faithfulness", "recon", "n_alive.embed", "n_alive.unembed", "l0.embed", "l0.unembed"]
    assert list(table)[:2] == list(GRID)
    assert set(numbers) <= set(table)
    assert list(table)[-4:] == ["seconds", "target_seconds", "error", "kept"]
    assert all(pd.api.types.is_numeric_dtype(table[column]) for column in [*numbers, "seconds", "target_seconds"])
    assert list(table["error"]) == [None] * 4
    assert (table["seconds"] > 0).all()
    assert (table["target_seconds"] > 0).all()


@pytest.mark.parametrize("i", range(len(POINTS)))
def test_a_row_is_what_that_run_gives(table, i):
    coeff, seed = POINTS[i]
    run = pdh.run("apd/tms_5-2", seed, simplicity_coeff=coeff, show_progress=False, **QUICK)
    row = table.iloc[i]
    torch.testing.assert_close(row["kept"]["embed"], run.components.layers["embed"].P.detach())
    for metric, value in flat(run.metrics).items():
        assert row[metric] == pytest.approx(value, rel=1e-4), metric


def test_each_target_is_trained_once(monkeypatch):
    trained, train, before = [], sweeps.make_target, torch.get_num_threads()

    def noted(config, seed, *arguments, **options):
        trained.append((seed, config.n_features))
        return train(config, seed, *arguments, **options)

    monkeypatch.setattr(sweeps, "make_target", noted)
    monkeypatch.setattr(api, "TargetStage", lambda *_, **__: pytest.fail("a run trained a target of its own"))
    grid = {"n_features": [5, 6], "lr": [0.1, 0.2], "seed": [0, 1]}
    table = sweep(grid, n_jobs=1)
    assert sorted(trained) == [(0, 5), (0, 6), (1, 5), (1, 6)]
    assert table.groupby(["n_features", "seed"])["target_seconds"].nunique().eq(1).all()
    trained.clear()
    sweep(grid, n_jobs=1, target_seed=7)
    assert sorted(trained) == [(7, 5), (7, 6)]
    assert torch.get_num_threads() == before


def test_a_target_that_is_given(monkeypatch):
    monkeypatch.setattr(sweeps, "make_target", lambda *_, **__: pytest.fail("a target was trained"))
    target = pdh.TMS(n_features=6, n_hidden=3)
    table = sweep({"seed": [0, 1]}, n_jobs=1, target=target, keep=lambda run: run.target.embed.weight)
    assert all(torch.equal(weight, target.embed.weight) for weight in table["kept"])
    assert (table["target_seconds"] == 0).all()


def test_a_run_that_fails_is_a_row_and_the_others_go_on():
    def keep(run):
        if run.config.lr == 0.2:
            raise RuntimeError("nothing to keep")
        return run.seed

    table = sweep({"lr": [0.1, 1e30, 0.2]}, keep=keep, n_jobs=1)
    assert table["error"][0] is None
    assert table["error"][1].startswith("FloatingPointError: the loss blew up at step")
    assert table["error"][2] == "RuntimeError: nothing to keep"
    assert list(table["mmcs"].isna()) == [False, True, False]
    assert list(table["kept"]) == [0, None, None]
    assert (table["seconds"] > 0).all()


def test_other_backends_of_joblib(table):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with joblib.parallel_config(backend="threading", n_jobs=2):
            other = sweep()
        with ThreadPoolExecutor() as pool:
            assert (torch.get_num_threads(), pool.submit(torch.get_num_threads).result()) == (3, 3)
    finally:
        torch.set_num_threads(before)
    pd.testing.assert_frame_equal(other[["mmcs", "n_alive.embed"]], table[["mmcs", "n_alive.embed"]])


@pytest.mark.slow
def test_a_dask_cluster(table, tmp_path):
    distributed = pytest.importorskip("distributed", reason="distributed is not installed; the test extra has it")
    here = threading.current_thread().name
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(**options, local_directory=tmp_path) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        other = sweep(keep=lambda _: threading.current_thread().name)
    assert list(other["error"]) == [None] * 4
    assert here not in set(other["kept"])
    pd.testing.assert_frame_equal(other[["mmcs", "n_alive.embed"]], table[["mmcs", "n_alive.embed"]])


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("grid", "options", "error", "message"),
    [
        ({}, {}, ValueError, "grid must map fields to lists of values, but is {}; .* works"),
        ([0.1, 0.7], {}, ValueError, r"grid must map fields .* but is \[0.1, 0.7\]; .* works"),
        ({"simplicity_coeff": []}, {}, ValueError, r"grid\['simplicity_coeff'\] has no values; .* works"),
        ({"simplicity_coeff": 0.1}, {}, TypeError, r"grid\['simplicity_coeff'\] must be a list .* \[0.1\] works"),
        ({"schedule": "cosine"}, {}, TypeError, r"grid\['schedule'\] must be a list .* \['cosine'\] works"),
        ({"simplicity_coef": [0.1]}, {}, ValueError, "'simplicity_coef': did you mean 'simplicity_coeff'?"),
        ({"lr": [0.1, -1.0]}, {}, ValueError, "lr must be .* but is -1.0; 0.03 works"),
        ({"seed": [0, 0.5]}, {}, ValueError, "seed must be a whole number of at least 0, but is 0.5; 0 works"),
        ({"lr": [0.1]}, {"lr": 0.2}, ValueError, "lr is in the grid and set to 0.2 for all runs; leave one"),
        ({"lr": [0.1]}, {"top_k": 0}, ValueError, "top_k must be .* but is 0"),
        ({"lr": [0.1]}, {"n_jobs": 0}, ValueError, "n_jobs must be a whole number other than 0, but is 0; 2 works"),
        ({"lr": [0.1]}, {"keep": "U"}, TypeError, "keep must be a function of a run, but is 'U'; .* works"),
        ({"lr": [0.1]}, {"device": "tpu"}, ValueError, "device must be .* but is 'tpu'"),
        ({"lr": [0.1]}, {"name": "apd/tms"}, ValueError, "unknown experiment 'apd/tms'"),
        ({"lr": [0.1]}, {"target": MLP()}, TypeError, "target must be a TMS or a Run with one, but is a MLP"),
        (
            {"n_features": [5, 6]},
            {"target": pdh.TMS(n_features=5, n_hidden=2)},
            ValueError,
            "but the target given has 5",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(grid, options, error, message):
    with pytest.raises(error, match=message):
        sweep(grid, **options)


PROGRAM = """
import signal
import pd_helpers as pdh

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
pdh.sweep("apd/tms_5-2", {"seed": range(1000)}, target_seed=0, steps=1, n_init=1, target_steps=1)
"""


@pytest.mark.slow
def test_a_script_shows_progress_and_ends_at_ctrl_c():
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        seen = b""
        while b"run/s" not in seen and process.poll() is None:
            seen += process.stderr.read1()
        process.send_signal(signal.SIGINT)
        seen += process.communicate(timeout=60)[1]
    assert b"KeyboardInterrupt" in seen
    assert process.returncode == -signal.SIGINT
