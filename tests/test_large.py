"""Large layers: what is measured of them without building a single component, and how much memory a run takes."""

import json
import subprocess
import sys

import pytest
import torch
from networks import MLP, SHARP, draw
from torch import nn

import pd_helpers as pdh
from pd_helpers.analysis import metrics
from pd_helpers.core.components import decompose


def factors(C=12, d_out=7, rank=2, d_in=5):
    return draw(C, d_out, rank, seed=1), draw(C, rank, d_in, seed=2)


class TestTheMatchOfFactors:
    @pytest.mark.parametrize("rank", [1, 2, 6])
    @pytest.mark.parametrize("piece", [1, 25, 2**22])  # one component at a time, a few, all
    def test_it_is_that_of_the_matrices(self, rank, piece, monkeypatch):
        monkeypatch.setattr(metrics, "LARGEST_PIECE", piece)
        (U, V), W = factors(rank=rank), draw(7, 5, seed=3)
        cosines, ratios = metrics.best_match(U @ V, W)
        match = metrics.factor_match(U, V, W)
        torch.testing.assert_close(match.cosines, cosines, **SHARP)
        torch.testing.assert_close(match.ratios, ratios, **SHARP)
        assert match.mmcs == pytest.approx(metrics.mmcs(U @ V, W))
        assert match.ml2r == pytest.approx(metrics.ml2r(U @ V, W))

    def test_columns_of_zeros(self):
        (U, V), W = factors(), draw(7, 5, seed=3)
        W[:, 0] = 0
        V[:, :, 1] = 0
        match = metrics.factor_match(U, V, W)
        assert (match.cosines[:2] == 0).all()
        assert (match.ratios[:2] == 0).all()
        assert (match.cosines[2:] > 0).all()

    def test_columns_that_all_point_away(self):
        """The largest cosine is then a negative one."""
        W = draw(7, 5, seed=3)
        U, V = -W.T.unsqueeze(2), torch.eye(5, dtype=W.dtype).unsqueeze(1)  # -W, one column each
        others = torch.ones(1, 7, 1, dtype=W.dtype), torch.zeros(1, 1, 5, dtype=W.dtype)
        alone = metrics.factor_match(-W.unsqueeze(0), torch.eye(5, dtype=W.dtype).unsqueeze(0), W)
        torch.testing.assert_close(alone.cosines, -torch.ones(5, dtype=W.dtype))
        torch.testing.assert_close(alone.ratios, torch.ones(5, dtype=W.dtype))
        with_zeros = metrics.factor_match(torch.cat([U, others[0]]), torch.cat([V, others[1]]), W)
        assert (with_zeros.cosines == 0).all()

    def test_factors_that_cancel(self):
        """In 32 bits, and with large factors whose product is small, the cosines are still those of the product."""
        W, large = draw(7, 5, seed=3).float(), 1e3 * torch.ones(7)
        U = torch.stack([W[:, 0] + large, large], dim=1).unsqueeze(0)  # P = (W₀ + l) - l, in its first column
        V = torch.zeros(1, 2, 5)
        V[0, :, 0] = torch.tensor([1.0, -1.0])
        match = metrics.factor_match(U, V, W)
        assert match.cosines[0] == pytest.approx(1, abs=1e-6)
        assert match.ratios[0] == pytest.approx(1, abs=1e-3)

    def test_a_layer_of_a_decomposition(self):
        model = decompose(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)), {"0": 4, "2": 6}, rank=2)
        for path, layer in model.layers.items():
            match = metrics.of_layer(model, path)
            torch.testing.assert_close(match.cosines, metrics.best_match(layer.P.detach(), model.targets[path])[0])
        with pytest.raises(ValueError, match=r"layer must be one that is decomposed, but is '1'; '0', '2' works"):
            metrics.of_layer(model, "1")


@pytest.mark.usefixtures("as_a_user", "quick_evaluation", "one_thread")
class TestFeaturesThatNeverOccur:
    def run(self, *absent):
        def data(n, generator):
            on = torch.rand(n, 5, generator=generator) < 0.2
            on[:, list(absent)] = False
            return torch.rand(n, 5, generator=generator) * on

        target = pdh.make_target(pdh.TMSConfig(target_steps=5), show_progress=False)
        return pdh.fit(target, pdh.SPDConfig(C=6, steps=2, batch_size=16), data, target.layers, show_progress=False)

    def test_there_is_a_warning(self):
        message = r"2 of 5 features never occur in the 1024 inputs .* and their columns count in MMCS and ML2R"
        with pytest.warns(UserWarning, match=message) as warned:
            run = self.run(1, 4)
        assert len([w for w in warned if "never occur" in str(w.message)]) == 1
        assert run.metrics["mmcs"] == pytest.approx(metrics.mmcs(*run.first_layer))

    def test_and_none_otherwise(self, recwarn):
        self.run()
        assert [str(w.message) for w in recwarn if w.category is UserWarning] == []


def compiled(network, backend):
    return torch.compile(network, backend=backend)


def compiled_in_place(network, backend):
    network.compile(backend=backend)
    return network


def compiled_in_part(network, backend):
    network.fc1 = torch.compile(network.fc1, backend=backend)
    return network


@pytest.mark.usefixtures("as_a_user", "quick_evaluation", "one_thread")
@pytest.mark.parametrize("compile", [compiled, compiled_in_place, compiled_in_part])
def test_nothing_is_compiled_anew_for_masks(compile):
    """Compiling for each set of masks took minutes; the frozen copy runs as it was written."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def fit(network):
        config = pdh.SPDConfig(C=4, steps=5, batch_size=16)
        return pdh.fit(network, config, lambda n, g: torch.rand(n, 6, generator=g), show_progress=False)

    torch.manual_seed(0)
    network = MLP(6, 8, 3)
    plain = fit(network)
    torch.compiler.reset()
    other = compile(network, backend)
    run = fit(other)
    assert graphs == []
    assert all(map(torch.equal, run.components.factors, plain.components.factors))
    other(torch.rand(2, 6))
    assert graphs  # what the caller compiled stays compiled


SCRIPT = """
import json, sys, tempfile
import torch
torch.set_num_threads(1)
import pd_helpers as pdh
from benchmarks.growth import largest_resident_size
from pd_helpers.analysis import metrics
from pd_helpers.runs import evaluation
rows, many = json.loads(sys.argv[1])
evaluation.N_EVALUATION, evaluation.FEWEST = 1024, 16
before = largest_resident_size()
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(4096, 4096))
data = lambda n, generator: torch.rand(n, *rows, 4096, generator=generator)
config = pdh.SPDConfig(C=2000, steps=1, batch_size=512 // (rows[0] if rows else 1))
with tempfile.TemporaryDirectory() as folder:
    run = pdh.fit(network, config, data, show_progress=False, out=folder + "/run")
peaks = [largest_resident_size() - before]
match = metrics.of_layer(run.components, "0")
peaks.append(largest_resident_size() - before)
x = torch.rand(many, *rows, 4096)
g = run.importances(x)["0"]
peaks.append(largest_resident_size() - before - x.nbytes - g.nbytes)
print(json.dumps([peaks, list(g.shape), match.mmcs, run.metrics["recon"]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "many"), [([], 20_000), ([64], 200)], ids=["vectors", "sequences"])
def test_a_large_layer_takes_less_than_three_gigabytes(rows, many):
    """4096 × 4096 with 2,000 subcomponents, in a process of its own, from the checks to what is stored and asked."""
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([rows, many])], stdout=subprocess.PIPE, text=True, check=True
    )
    (run, match, importances), shape, mmcs, recon = json.loads(process.stdout)
    print(f"peak memory: run {run / 1e9:.2f} GB, MMCS {match / 1e9:.2f} GB, importances {importances / 1e9:.2f} GB")
    assert max(run, match, importances) < 3e9
    assert shape == [many, *rows, 2000]
    assert 0 < mmcs < 1
    assert recon > 0
