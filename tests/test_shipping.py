"""Shipped runs: all that is listed is there, light, and measures as recorded; shipping loses no more than it states."""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import pd_helpers as pdh
from pd_helpers.__main__ import main
from pd_helpers.analysis import metrics
from pd_helpers.runs import evaluation, files, shipped, sweeps
from pd_helpers.runs.evaluation import evaluate
from tools import ship

pytestmark = pytest.mark.usefixtures("as_a_user")
MANIFEST = shipped.manifest()
QUICK = {"steps": 20, "target_steps": 50, "batch_size": 64, "faithfulness_warmup_steps": 5, "n_init": 1}


def shipped_facts(entry):
    return files.read_facts(shipped.SHIPPED / entry["name"] / entry["variant"])


def assert_metrics_agree(new, old, device):
    """On a GPU other random numbers are drawn for the evaluation, so that its averages differ a little."""
    same_numbers = {"rel": 1e-2, "abs": 1e-5} if device == "cpu" else {"rel": 0.15, "abs": 1e-4}
    assert new.keys() == old.keys()
    for key, value in old.items():
        if key in ("recon", "l0"):
            assert new[key] == pytest.approx(value, **same_numbers), key
        else:
            assert new[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key


@pytest.mark.slow
class TestWhatIsShipped:
    def test_the_manifest_lists_exactly_what_is_there(self):
        assert ship.list_shipped() == MANIFEST
        folders = [f"{entry['name']}/{entry['variant']}" for entry in MANIFEST["runs"] + MANIFEST["sweeps"]]
        listed = [f"{folder}/{name}" for folder in folders for name in ("run.json", "tensors.safetensors")]
        there = [path for path in shipped.SHIPPED.rglob("*") if path.is_file()]
        assert sorted([*listed, "manifest.json"]) == sorted(str(p.relative_to(shipped.SHIPPED)) for p in there)

    def test_it_is_light(self):
        megabytes = sum(path.stat().st_size for path in shipped.SHIPPED.rglob("*") if path.is_file()) / 1e6
        assert megabytes < 40
        assert MANIFEST["megabytes"] == pytest.approx(megabytes, abs=0.1)

    @pytest.mark.parametrize("entry", MANIFEST["runs"], ids=lambda entry: f"{entry['name']}:{entry['variant']}")
    def test_a_run_measures_as_recorded(self, entry):
        run = pdh.shipped(entry["name"], entry["variant"])
        assert (run.name, run.seed) == (entry["name"], entry["seed"])
        assert run.metrics == entry["metrics"]
        assert_metrics_agree(evaluate(run), run.metrics, entry["device"])
        if run.snapshots:  # of large runs none is shipped
            assert (run.snapshots[0].step, run.snapshots[-1].step) == (0, run.config.steps)
        assert len(run.history) > 10

    @pytest.mark.parametrize("entry", MANIFEST["runs"], ids=lambda entry: f"{entry['name']}:{entry['variant']}")
    def test_run_json_says_how_it_was_made(self, entry):
        facts = shipped_facts(entry)
        assert facts["seconds"] > 0
        assert facts["threads"] > 0
        assert set(facts["versions"]) == {"pd_helpers", "torch"}
        assert (facts["device"], facts["date"]) == (entry["device"], entry["date"])
        for change in (v for key, v in facts["shipped"].items() if key.startswith("largest_change")):
            assert max(change.values()) < 1e-2

    def test_sweeps_are_whole(self):
        for entry in MANIFEST["sweeps"]:
            table = pdh.shipped_sweep(entry["name"], entry["variant"])
            assert len(table) == entry["runs"]
            if not entry["name"].startswith(("apd", "spd")):  # mixing and sparsity, where nothing is decomposed
                continue
            gated = entry["name"] == "apd/gated"  # whose first layer reads no input from the stream's last dimension
            first, inputs = ("mlps.0.W_in", slice(5)) if gated else ("embed", slice(None))
            for row in table[table["error"].isna()].itertuples() if "kept" in table else ():
                if "cosines" in row.kept:  # of a sweep that counts
                    assert row.kept["cosines"].mean().item() == pytest.approx(row.mmcs, rel=1e-4)
                    continue
                P, W = (row.kept[f"{part}.{first}"][..., inputs] for part in "PW")
                assert metrics.ml2r(P, W) == pytest.approx(row.ml2r, rel=1e-4)

    @pytest.mark.parametrize(
        ("name", "variant"),
        [
            ("apd/tms_5-2", "shrinkage"),
            ("apd/tms_5-2_lp", "coefficients"),
            ("apd/tms_40-10", "simplicity"),
            ("apd/gated", "coefficients"),
            ("mlp/mixing", "models"),
        ],
    )
    def test_the_sweep_that_a_name_alone_stands_for_stays_the_same(self, name, variant):
        assert next(entry["variant"] for entry in MANIFEST["sweeps"] if entry["name"] == name) == variant
        pd.testing.assert_frame_equal(
            pdh.shipped_sweep(name).drop(columns="kept"), pdh.shipped_sweep(name, variant).drop(columns="kept")
        )

    def test_what_is_not_shipped(self):
        with pytest.raises(
            ValueError, match="no run of 'apd/tms_52' is shipped: did you mean 'apd/tms_5-2'.*shipped are"
        ):
            pdh.shipped("apd/tms_52")
        with pytest.raises(ValueError, match="no variant 'seed9' of 'apd/tms_5-2' is shipped; 'seed0'"):
            pdh.shipped("apd/tms_5-2", "seed9")
        with pytest.raises(ValueError, match="no sweep of 'apd/tms_9-9' is shipped"):
            pdh.shipped_sweep("apd/tms_9-9")

    def test_a_sweep_where_a_run_was_asked_for(self):
        with pytest.raises(ValueError, match=r"no run of 'apd/gated' .* sweeps are: pdh.shipped_sweep\('apd/gated', '"):
            pdh.shipped("apd/gated")
        with pytest.raises(ValueError, match=r"'seed0' is; pdh.shipped_sweep\('apd/tms_5-2', 'shrinkage'\) works"):
            pdh.shipped("apd/tms_5-2", "shrinkage")

    @pytest.mark.parametrize("name", sorted({entry["name"] for entry in MANIFEST["runs"]}))
    def test_every_name_that_has_runs_works_without_a_variant(self, name):
        assert (pdh.shipped(name).name, pdh.shipped(name).seed) == (name, 0)


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A package in which nothing is shipped yet."""
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(evaluation, "N_EVALUATION", 1024)
    return tmp_path / "shipped"


def small_run(name="apd/tms_5-2", seed=0, **changes):
    return pdh.run(name, seed, show_progress=False, **{**QUICK, **changes})


def packed(U, V, name="a", **more):
    return {f"U.{name}": U, f"V.{name}": V, **more}, {"layers": {name: len(U)}, "shipped": {}}


class TestCuttingToRank:
    def test_hand_set(self):
        """Components of rank 1, 2 and 0, and one with a small second singular value, as products of rank 3."""
        torch.manual_seed(0)
        u, v = torch.linalg.qr(torch.randn(4, 4)).Q, torch.linalg.qr(torch.randn(5, 5)).Q
        s = torch.tensor([[2.0, 0, 0], [1.0, 0.5, 0], [1e-5, 0, 0], [1.0, 1e-5, 0]])
        U, V = u[:, :3] * s.unsqueeze(1), v[:3].expand(4, 3, 5)  # P = u diag(s) v
        tensors, facts = ship.cut_to_rank(*packed(U, V, other=torch.ones(2)))
        assert tensors["U.a"].shape == (3, 4, 2)
        assert tensors["V.a"].shape == (3, 2, 5)
        assert facts["layers"] == {"a": 3}
        assert facts["shipped"]["components"] == [0, 1, 3]
        kept = (U @ V)[[0, 1, 3]]
        torch.testing.assert_close(tensors["U.a"] @ tensors["V.a"], kept, atol=1.01e-5, rtol=0)
        first, second = u[:, :1] @ v[:1], u[:, 1:2] @ v[1:2]
        lost = 1e-5 * torch.stack([first, second])
        assert facts["shipped"]["largest_change_of_P"]["a"] == pytest.approx(lost.abs().max().item(), rel=0.1)
        assert facts["shipped"]["largest_change_of_sum"]["a"] == pytest.approx(
            lost.sum(dim=0).abs().max().item(), rel=0.1
        )
        assert torch.equal(tensors["other"], torch.ones(2))

    def test_a_component_stays_that_lives_in_one_layer_only(self):
        one, none = torch.eye(3).expand(2, 3, 3), torch.zeros(2, 3, 3)
        U = {"a": torch.stack([one[0], none[0]]), "b": torch.stack([none[0], one[0]])}
        tensors, facts = {}, {"layers": {"a": 2, "b": 2}, "shipped": {}}
        for path in U:
            tensors |= packed(U[path], one, path)[0]
        tensors, facts = ship.cut_to_rank(tensors, facts)
        assert facts["shipped"]["components"] == [0, 1]
        assert facts["layers"] == {"a": 2, "b": 2}
        torch.testing.assert_close(tensors["U.b"] @ tensors["V.b"], U["b"])


class TestShipping:
    def test_a_light_apd_run_is_shipped_as_it_is(self, empty):
        run = small_run(C=6)
        ship.ship(run)
        again = pdh.shipped("apd/tms_5-2")
        assert all(map(torch.equal, again.components.factors, run.components.factors))
        assert evaluate(again) == run.metrics
        assert [s.step for s in again.snapshots] == [s.step for s in run.snapshots]
        assert torch.equal(again.snapshots[3].P("embed"), run.snapshots[3].P("embed"))

    def test_a_heavy_apd_run_is_cut_to_rank(self, empty, monkeypatch):
        monkeypatch.setattr(ship, "HEAVY", 100)
        run = small_run(C=6)
        with torch.no_grad():
            layer = run.components.layers["embed"]
            layer.U[4].zero_()
            layer.U[:, :, 1:] = 0  # rank 1
        run.metrics = evaluate(run)
        ship.ship(run)
        again = pdh.shipped("apd/tms_5-2")
        assert again.components.layers["embed"].U.shape == (5, 2, 1)
        assert again.config == run.config
        P = layer.P.detach()[[0, 1, 2, 3, 5]]
        torch.testing.assert_close(again.components.layers["embed"].P.detach(), P)
        assert_metrics_agree(evaluate(again), run.metrics, "cpu")
        pd.testing.assert_frame_equal(again.history, run.history)

    def test_components_of_different_rank_are_stored_without_zeros(self, empty, monkeypatch):
        monkeypatch.setattr(ship, "HEAVY", 100)
        run = small_run(C=6, rank=3)
        layer, draw = run.components.layers["embed"], torch.Generator().manual_seed(0)
        with torch.no_grad():
            for factor in (layer.U, layer.V):
                factor.copy_(torch.randn(factor.shape, generator=draw))
            layer.U[1:, :, 1:] = 0  # rank two, as there are two rows, and five of rank one
        run.metrics = evaluate(run)
        ship.ship(run)
        stored = load_file(shipped.SHIPPED / "apd/tms_5-2/seed0/tensors.safetensors")
        assert stored["U.embed"].shape == (7, 2)
        assert stored["V.embed"].shape == (7, 5)
        again = pdh.shipped("apd/tms_5-2").components.layers["embed"]
        assert again.U.shape == (6, 2, 2)
        torch.testing.assert_close(again.P.detach(), layer.P.detach())

    def test_an_spd_run_keeps_everything(self, empty):
        run = small_run("spd/tms_5-2", C=6)
        ship.ship(run)
        again = pdh.shipped("spd/tms_5-2")
        assert evaluate(again) == run.metrics
        assert all(map(torch.equal, again.components.factors, run.components.factors))

    def test_heavy_snapshots_are_thinned(self, empty, monkeypatch):
        run = small_run(steps=60)
        total = sum(t.nbytes for name, t in run.pack()[0].items() if name.startswith("snapshots."))
        monkeypatch.setattr(ship, "HEAVY", total // 2)
        ship.ship(run)
        again, by_step = pdh.shipped("apd/tms_5-2"), {s.step: s for s in run.snapshots}
        assert len(run.snapshots) > len(again.snapshots) == 20
        assert (again.snapshots[0].step, again.snapshots[-1].step) == (0, 60)
        changes = [(s.P("embed") - by_step[s.step].P("embed")).abs().max().item() for s in again.snapshots]
        stated = shipped_facts({"name": "apd/tms_5-2", "variant": "seed0"})["shipped"]["largest_change_of_snapshots"]
        assert stated["embed"] == pytest.approx(max(changes), rel=1e-3)
        assert 0 < max(changes) < 1e-2

    def test_snapshots_that_are_not_wanted_are_left_out(self, empty):
        run = small_run()
        ship.ship(run, snapshots=False)
        again = pdh.shipped("apd/tms_5-2")
        assert again.snapshots == []
        assert evaluate(again) == run.metrics

    def test_of_very_heavy_snapshots_none_stays(self, empty, monkeypatch):
        run = small_run(steps=60)
        monkeypatch.setattr(ship, "HEAVY", 100)
        ship.ship(run)
        again = pdh.shipped("apd/tms_5-2")
        assert again.snapshots == []
        assert_metrics_agree(evaluate(again), run.metrics, "cpu")

    def test_variants_and_the_manifest(self, empty):
        ship.ship(small_run(seed=0), "seed0")
        ship.ship(small_run(seed=1, lr=0.01), "seed1")
        listed = shipped.manifest()
        assert [(entry["variant"], entry["seed"]) for entry in listed["runs"]] == [("seed0", 0), ("seed1", 1)]
        assert listed["runs"][0]["config"] == QUICK
        assert listed["runs"][1]["config"] == {**QUICK, "lr": 0.01}
        assert pdh.shipped("apd/tms_5-2").seed == 0
        assert pdh.shipped("apd/tms_5-2", "seed1").seed == 1
        with pytest.raises(ValueError, match="no variant 'seed2' of 'apd/tms_5-2' is shipped; 'seed0', 'seed1' are"):
            pdh.shipped("apd/tms_5-2", "seed2")
        ship.ship(small_run(seed=5), "seed1")  # in the other's place
        assert pdh.shipped("apd/tms_5-2", "seed1").seed == 5
        assert shipped.manifest() == ship.list_shipped()

    def test_an_unfinished_run_is_refused(self, empty):
        with pytest.raises(ValueError, match="run is not finished"):
            ship.ship(pdh.prepare("apd/tms_5-2", show_progress=False, **QUICK))
        assert not empty.exists()

    def test_a_sweep(self, empty):
        plan = ship.SweepPlan("apd/tms_5-2", "lr", {"lr": [0.1, 1e30, 0.05]}, QUICK)
        table = pdh.sweep(plan.name, plan.grid, n_jobs=1, show_progress=False, keep=sweeps.end_state, **plan.overrides)
        ship.ship_sweep(table, plan, "cpu")
        again = pdh.shipped_sweep("apd/tms_5-2")
        pd.testing.assert_frame_equal(again.drop(columns="kept"), table.drop(columns="kept"))
        assert again["kept"][1] is None
        for i in (0, 2):
            assert again["kept"][i].keys() == {"P.embed", "W.embed"}
            assert all(torch.equal(again["kept"][i][key], table["kept"][i][key]) for key in again["kept"][i])
        (entry,) = shipped.manifest()["sweeps"]
        assert (entry["grid"], entry["config"], entry["runs"]) == (plan.grid, QUICK, 3)

    def test_lists_of_numbers_take_a_line_each_and_say_the_same(self):
        facts = {"a": [1, -2.5e-07, None, True], "b": [], "c": ["x,\n[1,\n 2]", "y"], "d": [{"e": [0.5]}, [3, 4]]}
        light = ship.lists_on_one_line(json.dumps(facts, indent=1))
        assert json.loads(light) == facts
        assert '"a": [1, -2.5e-07, null, true],\n' in light
        assert light.count("\n") < json.dumps(facts, indent=1).count("\n")
        assert ship.lists_on_one_line(light) == light

    def test_a_sweep_without_end_states(self, empty):
        plan = ship.SweepPlan("apd/tms_5-2", "lr", {"lr": [0.1, 0.2]}, QUICK, keep=None)
        table = pdh.sweep(plan.name, plan.grid, n_jobs=1, show_progress=False, **plan.overrides)
        ship.ship_sweep(table, plan, "cpu")
        pd.testing.assert_frame_equal(pdh.shipped_sweep("apd/tms_5-2"), table)


@pytest.mark.slow
class TestTheCommand:
    @pytest.fixture(autouse=True)
    def plans(self, empty, monkeypatch):
        plans = [ship.Plan("apd/tms_5-2", overrides=QUICK), ship.Plan("apd/tms_5-2", "seed1", 1, QUICK)]
        monkeypatch.setattr(ship, "RUNS", plans)
        sweeps = [ship.SweepPlan("apd/tms_5-2", "lr", {"lr": [0.1, 0.2]}, QUICK, keep=None)]
        monkeypatch.setattr(ship, "SWEEPS", sweeps)

    def test_it_ships_what_is_planned_and_lists_it(self, capsys):
        assert ship.main([]) == 0
        assert capsys.readouterr().out.count("not shipped") == 3
        assert ship.main(["apd/tms_5-2:seed1", "--device", "cpu"]) == 0
        assert [entry["seed"] for entry in shipped.manifest()["runs"]] == [1]
        assert ship.main(["apd/tms_5-2"]) == 0
        assert [entry["seed"] for entry in shipped.manifest()["runs"]] == [0, 1]
        assert list(pdh.shipped_sweep("apd/tms_5-2", "lr")["lr"]) == [0.1, 0.2]
        capsys.readouterr()
        assert ship.main([]) == 0
        assert "not shipped" not in capsys.readouterr().out

    def test_a_sweep_of_something_else_is_what_its_function_makes(self, monkeypatch):
        def table(grid, factor):
            rows = [{"x": x, "y": factor * x, "seconds": 1.0, "error": None, "kept": {}} for x in grid["x"]]
            return pd.DataFrame(rows)

        monkeypatch.setattr(ship, "SWEEPS", [ship.SweepPlan("a/b", "c", {"x": [1, 2]}, {"factor": 3}, table)])
        assert ship.main(["a/b:c"]) == 0
        assert pdh.shipped_sweep("a/b")["y"].tolist() == [3, 6]
        (entry,) = shipped.manifest()["sweeps"]
        assert (entry["config"], entry["runs"], entry["device"]) == ({"factor": 3}, 2, "cpu")

    def test_what_is_not_planned(self, capsys):
        assert ship.main(["apd/tms_5-2:seed7"]) == 2
        assert capsys.readouterr().err.startswith("error: 'apd/tms_5-2:seed7' is not planned; apd/tms_5-2:seed0, ")


class TestReproduce:
    def test_the_same_numbers_come_out(self, empty, capsys):
        ship.ship(small_run(seed=4, lr=0.02, n_features=6), "mine")
        assert main(["reproduce", "apd/tms_5-2", "--variant", "mine", "--device", "cpu"]) == 0
        written = capsys.readouterr()
        result = json.loads(written.out)
        contract = ["experiment", "seed", "device", "steps", "seconds", "target_seconds", "metrics"]
        assert list(result) == [*contract, "shipped_metrics", "difference"]
        assert (result["experiment"], result["seed"], result["steps"]) == ("apd/tms_5-2", 4, 20)
        assert result["shipped_metrics"] == shipped.manifest()["runs"][0]["metrics"]
        assert result["difference"]["mmcs"] == pytest.approx(0, abs=1e-5)
        assert result["difference"]["n_alive"] == {"embed": 0, "unembed": 0}
        assert [line.split()[0] for line in written.err.splitlines() if "mmcs " in line] == ["mmcs"]

    def test_a_difference_shows(self, empty, capsys):
        path = ship.ship(small_run(), "seed0") / "run.json"
        facts = json.loads(path.read_text())
        facts["metrics"]["mmcs"] -= 0.25
        facts["metrics"]["n_alive"]["embed"] -= 1
        path.write_text(json.dumps(files.sealed(facts)))
        assert main(["reproduce", "apd/tms_5-2", "--device", "cpu"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["difference"]["mmcs"] == pytest.approx(0.25, abs=1e-5)
        assert result["difference"]["n_alive"] == {"embed": 1, "unembed": 0}
        assert result["metrics"]["mmcs"] - result["shipped_metrics"]["mmcs"] == result["difference"]["mmcs"]

    def test_what_is_not_shipped(self, capsys):
        assert main(["reproduce", "apd/tms_5-3"]) == 2
        assert "error: no run of 'apd/tms_5-3' is shipped: did you mean" in capsys.readouterr().err
