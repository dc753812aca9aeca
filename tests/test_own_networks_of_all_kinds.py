"""Networks, data and numbers as people bring them: what is right stays right, and what cannot work says so."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pd_helpers as pdh
from pd_helpers.runs.evaluation import evaluate

pytestmark = pytest.mark.usefixtures("as_a_user", "quick_evaluation")

SMALL = {"steps": 12, "target_steps": 20, "batch_size": 16, "n_init": 1, "show_progress": False}


def data(n, generator):
    return torch.rand(n, 8, generator=generator)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))


def fit(network, layers=("0", "2"), data=data, **settings):
    config = pdh.SPDConfig(**{"C": 6, "d_gate": 4, "steps": 12, "batch_size": 16, **settings})
    return pdh.fit(network, config, data, layers, show_progress=False)


class Of(nn.Module):
    """A network of the named modules that computes `compute(self, x)`."""

    def __init__(self, compute, **modules):
        super().__init__()
        self.compute = compute
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        return self.compute(self, x)


class TestRefused:
    def test_a_weight_that_is_used_outside_of_its_layer(self):
        tied = Of(lambda n, x: F.linear(F.relu(n.a(x)), n.a.weight.T), a=nn.Linear(8, 5, bias=False))
        with pytest.raises(ValueError, match="weight of layer 'a' is also used outside of it.*TransposedLinear"):
            fit(tied, ["a"])

    def test_but_its_shape_and_type_may_be_read(self):
        network = Of(lambda n, x: n.a(x.to(n.a.weight.dtype)[:, : n.a.weight.shape[1]]), a=nn.Linear(8, 5))
        assert fit(network, ["a"]).metrics["recon"] > 0

    def test_a_forward_pass_without_gradients(self):
        network = Of(torch.no_grad()(lambda n, x: n.m(x)), m=mlp())
        with pytest.raises(ValueError, match="where gradients are switched off"):
            fit(network, ["m.0", "m.2"])

    def test_a_compiled_network(self):
        with pytest.raises(TypeError, match="compiled by torch.jit"):
            fit(torch.jit.script(mlp()))

    def test_inputs_of_another_type(self):
        with pytest.raises(ValueError, match="layer '0' computes in float32, but got float64"):
            fit(mlp()).importances(torch.rand(3, 8, dtype=torch.float64))

    @pytest.mark.parametrize(("name", "value"), [("generator", 3), ("std", -1), ("std", float("nan")), ("rank", True)])
    def test_what_decompose_cannot_take(self, name, value):
        with pytest.raises((ValueError, TypeError), match=f"{name} must be"):
            pdh.decompose(mlp(), {"0": 2}, **{name: value})


class TestRight:
    def test_a_network_that_does_more_than_its_training_flag_says(self):
        class Scaled(nn.Sequential):
            scale = 3.0

            def train(self, mode=True):
                super().train(mode)
                self.scale = 3.0 if mode else 1.0
                return self

            def forward(self, x):
                return self.scale * super().forward(x)

        network, x = Scaled(*mlp()), torch.rand(9, 8)
        network.train()
        run = fit(network)
        assert network.scale == 3.0
        network.eval()
        assert torch.equal(network(x), run.target(x))

    def test_a_part_that_is_compiled(self):
        network = Of(lambda n, x: n.a(n.pre(x)), pre=torch.jit.script(nn.Linear(8, 8)), a=nn.Linear(8, 8))
        x = torch.rand(3, 8)
        assert torch.equal(fit(network, ["a"]).target(x), network(x))
        assert all(p.requires_grad for p in network.parameters())

    def test_a_layer_called_by_keyword(self):
        network = Of(lambda n, x: n.a(input=x), a=nn.Linear(8, 8))
        plain = Of(lambda n, x: n.a(x), a=network.a)
        assert fit(network, ["a"]).metrics == fit(plain, ["a"]).metrics

    def test_a_network_made_in_inference_mode(self):
        with torch.inference_mode():
            network = mlp()
        assert fit(network).metrics == fit(mlp()).metrics

    def test_parameters_that_share_memory_are_stored(self, tmp_path):
        def shared():
            network = Of(lambda n, x: n.b(F.relu(n.a(x))), a=nn.Linear(8, 8), b=nn.Linear(8, 8))
            network.b.weight.data = network.a.weight.data
            return network

        run = fit(shared(), ["a"])
        assert pdh.load(run.save(tmp_path / "run"), target=shared()).metrics == run.metrics

    def test_buffers_of_every_type_are_stored(self, tmp_path):
        def masked():
            network = Of(lambda n, x: n.a(x), a=nn.Linear(8, 8))
            network.register_buffer("mask", torch.full((8, 8), float("-inf")).triu(1))
            network.register_buffer("rotation", torch.polar(torch.ones(4), torch.arange(4.0)))
            network.register_buffer("places", torch.arange(3, dtype=torch.uint8).to(torch.uint16))
            network.register_buffer("low", torch.zeros(3).to(torch.float8_e4m3fn))
            return network

        run = fit(masked(), ["a"])
        target = masked()
        target.rotation.zero_()
        assert pdh.load(run.save(tmp_path / "run"), target=target).metrics == run.metrics
        assert torch.equal(target.rotation, masked().rotation)

    @pytest.mark.parametrize(
        "sample",
        [
            lambda n, g: torch.linspace(0, 1, 128).view(16, 8),
            lambda n, g: torch.cat([torch.rand(n // 4, 8, generator=g)] * 4),
            lambda n, g: torch.rand(min(n, 10), 8, generator=g),
        ],
        ids=["full batch", "by fours", "at most ten"],
    )
    def test_samplers_that_give_another_number_of_inputs(self, sample):
        assert fit(mlp(), data=sample).metrics["recon"] > 0

    @pytest.mark.parametrize("four", [np.int64(4), torch.tensor(4), 4])
    def test_whole_numbers_of_any_kind(self, four):
        assert fit(mlp(), {"0": four}).components.layers["0"].C == 4


class TestSaved:
    @pytest.mark.parametrize("name", ["apd/tms_5-2", "apd/tms_5-2_id", "apd/tms_40-10", "spd/tms_5-2"])
    def test_a_shipped_run_again(self, name, tmp_path):
        run = pdh.shipped(name)
        again = pdh.load(run.save(tmp_path / "run"))
        assert again.metrics == run.metrics
        assert len(again.snapshots) == len(run.snapshots)
        assert all(map(torch.equal, again.components.factors, run.components.factors))

    def test_edited_components_are_measured_again(self, tmp_path):
        run = pdh.run("spd/tms_5-2", **SMALL)
        layer = run.components.layers["embed"]
        with torch.no_grad():  # what the parameters alone determine stays as it is
            order = torch.arange(layer.C).roll(1)
            layer.U.copy_(layer.U[order])
            layer.V.copy_(layer.V[order])
        stored = pdh.load(run.save(tmp_path / "run")).metrics
        assert stored == evaluate(run)

    def test_an_unfinished_run_is_refused(self, tmp_path):
        run = pdh.prepare("spd/tms_5-2", **SMALL)
        next(run.steps())
        with pytest.raises(ValueError, match="the run is at step 1 of 12, and only finished runs can be saved"):
            run.save(tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_metrics_of_numpy_and_torch(self, tmp_path):
        run = fit(mlp())
        run.metrics |= {"a": np.float32(0.5), "b": torch.tensor(2), "c": {"d": np.int64(3)}}
        stored = pdh.load(run.save(tmp_path / "run"), target=mlp()).metrics
        assert (stored["a"], stored["b"], stored["c"]) == (0.5, 2, {"d": 3})

    def test_under_another_default_type(self, tmp_path):
        torch.set_default_dtype(torch.float64)
        try:
            assert pdh.shipped("spd/tms_5-2").components.factors[0].dtype == torch.float32
            folder = pdh.run("spd/tms_5-2", **SMALL).save(tmp_path / "run")
        finally:
            torch.set_default_dtype(torch.float32)
        assert pdh.load(folder).components.factors[0].dtype == torch.float64

    def test_nowhere(self):
        with pytest.raises(TypeError, match="folder must be the path of a folder, but is None"):
            fit(mlp()).save(None)
