"""Mixed precision: what runs in bfloat16 under `autocast=True`, what never does, and what the caller's does."""

import pytest
import torch
from networks import MLP
from torch import nn

import pd_helpers as pdh

pytestmark = pytest.mark.usefixtures("as_a_user", "quick_evaluation", "one_thread")

IN_BFLOAT16 = {"device_type": "cpu", "dtype": torch.bfloat16}


class Attention(nn.Module):
    """A transformer of one layer on tokens: (batch, positions) → logits (batch, positions, 11)."""

    def __init__(self, d=16):
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(11, d), nn.LayerNorm(d), nn.Linear(d, 11)
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))

    def forward(self, tokens):
        x = self.embed(tokens)
        h = self.norm(x)
        mixed = nn.functional.scaled_dot_product_attention(self.q(h), self.k(h), self.v(h), is_causal=True)
        return self.head(x + self.o(mixed))


class Watched(MLP):
    """Notes the type of what its first layer gives."""

    types: set = set()  # noqa: RUF012

    def forward(self, x):
        h = self.fc1(x)
        self.types.add(h.dtype)
        return self.fc2(torch.relu(h))


def numbers(n, generator):
    return torch.randn(n, 3, generator=generator)


def tokens(n, generator):
    return torch.randint(11, (n, 7), generator=generator)


def fit(network=MLP, data=numbers, method="spd", **settings):
    torch.manual_seed(0)
    settings = {"C": 8, "steps": 20, "batch_size": 32} | settings
    config = pdh.SPDConfig(**settings) if method == "spd" else pdh.APDConfig(**{"top_k": 3.0} | settings)
    return pdh.fit(network(), config, data, show_progress=False)


def factors(run):
    return [*run.method.parameters().values()]


@pytest.fixture(scope="module")
def pairs():
    """Runs with and without autocast; all components of APD are active, since a top-k would be chosen differently."""
    transformer = {"network": Attention, "data": tokens, "output_loss": "kl"}
    return {
        "spd": [fit(autocast=on) for on in (True, False)],
        "apd": [fit(method="apd", hidden_coeff=1.0, top_k=8.0, lr=3e-3, autocast=on) for on in (True, False)],
        "transformer": [fit(**transformer, autocast=on) for on in (True, False)],
    }


@pytest.mark.parametrize("name", ["spd", "apd", "transformer"])
class TestARun:
    def test_its_losses_are_close_to_those_in_float32(self, name, pairs):
        mixed, precise = (run.history.drop(columns="step") for run in pairs[name])
        assert len(mixed) == 20
        assert not mixed.equals(precise)
        for column in mixed:
            torch.testing.assert_close(
                torch.tensor(mixed[column]), torch.tensor(precise[column]), rtol=0.05, atol=0.02 * precise[column].max()
            )

    def test_what_is_trained_and_measured_is_in_float32(self, name, pairs):
        mixed, precise = pairs[name]
        remembered = [t for name, t in mixed.method.state().items() if "exp_avg" in name]
        assert {t.dtype for t in [*factors(mixed), *remembered]} == {torch.float32}
        x = (tokens if name == "transformer" else numbers)(9, torch.Generator().manual_seed(1))
        assert {g.dtype for g in mixed.importances(x).values()} == {torch.float32}
        assert mixed.metrics["recon"] == pytest.approx(precise.metrics["recon"], rel=0.05)


def test_the_network_computes_in_bfloat16_while_it_is_trained_and_only_then():
    Watched.types.clear()
    run = fit(Watched, steps=2)
    assert Watched.types == {torch.float32}
    mixed = fit(Watched, steps=2, autocast=True)
    assert Watched.types == {torch.float32, torch.bfloat16}
    Watched.types.clear()
    for each in (run, mixed):
        each.importances(torch.rand(4, 3))
    assert Watched.types == {torch.float32}


@pytest.mark.parametrize("method", ["spd", "apd"])
def test_faithfulness_and_its_gradient_stay_in_float32(method):
    """Nothing but faithfulness is trained, so any rounding of it, or of a step, would show in the factors."""
    others = ["recon", "recon_layerwise", "importance"] if method == "spd" else ["minimality", "simplicity"]
    settings = {f"{name}_coeff": 0.0 for name in others}
    mixed, precise = (fit(method=method, autocast=on, **settings) for on in (True, False))
    for one, other in zip(factors(mixed), factors(precise), strict=True):
        assert torch.equal(one, other)
    assert mixed.history["faithfulness"].equals(precise.history["faithfulness"])


def test_a_run_is_resumed_bit_for_bit(tmp_path):
    n_batches = 0

    def interrupted(n, generator):
        nonlocal n_batches
        n_batches += 1
        if n_batches == 12:
            raise KeyboardInterrupt
        return numbers(n, generator)

    settings = pdh.SPDConfig(C=8, steps=20, batch_size=32, autocast=True)
    whole = fit(autocast=True)
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        pdh.fit(MLP(), settings, interrupted, show_progress=False, out=tmp_path / "run")
    assert n_batches == 12
    resumed = pdh.resume(tmp_path / "run", target=MLP(), data=numbers, show_progress=False)
    assert resumed.config.autocast is True
    assert all(map(torch.equal, factors(resumed), factors(whole)))
    assert pdh.load(tmp_path / "run", target=MLP()).config.autocast is True


class TestTheCallersAutocast:
    @pytest.mark.parametrize("autocast", [True, False])
    @pytest.mark.parametrize("method", ["spd", "apd"])
    def test_a_run_does_not_depend_on_it(self, method, autocast):
        outside = fit(method=method, autocast=autocast)
        with torch.autocast(**IN_BFLOAT16):
            inside = fit(method=method, autocast=autocast)
            assert torch.is_autocast_enabled("cpu")
        assert all(map(torch.equal, factors(inside), factors(outside)))
        assert inside.metrics == outside.metrics

    def test_nor_do_steps_that_are_taken_one_by_one(self):
        settings = {"C": 6, "d_gate": 4, "target_steps": 2, "steps": 3, "batch_size": 16, "show_progress": False}
        outside, inside = (pdh.prepare("spd/tms_5-2", **settings) for _ in range(2))
        list(outside.steps())
        with torch.autocast(**IN_BFLOAT16):
            for _ in inside.steps():
                assert torch.is_autocast_enabled("cpu")
        assert all(map(torch.equal, factors(inside), factors(outside)))

    def test_it_holds_for_importances(self):
        run, x = fit(), torch.rand(5, 3)
        with torch.autocast(**IN_BFLOAT16):
            found = run.importances(x)
        for use, g in run.importances(x).items():
            torch.testing.assert_close(found[use], g, rtol=0, atol=0.05)


class Strict(MLP):
    """Writes what its first layer gives into a table of single precision."""

    def forward(self, x):
        table = torch.zeros(len(x), 4)
        table[torch.arange(len(x))] = self.fc1(x)
        return self.fc2(torch.relu(table))


def test_a_network_that_does_not_compute_in_bfloat16_is_refused_before_training():
    assert fit(Strict, steps=1).step == 1
    with pytest.raises(ValueError, match=r"^autocast is True, but the network does not compute in bfloat16: Index"):
        fit(Strict, steps=10**9, autocast=True)


def test_whether_inputs_depend_on_one_another_is_found_out_in_float32():
    """Rounding to bfloat16 may differ with the size of a batch, and must not make inputs look as if they interacted."""
    passes = []

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(30, 20, bias=False), nn.Linear(20, 4, bias=False)

        def forward(self, x):
            h = self.a(x)
            passes.append((len(x), h.dtype))
            return self.b(torch.relu(h))

    def sparse(n, generator):
        return torch.rand(n, 30, generator=generator) * (torch.rand(n, 1, generator=generator) < 0.1)

    fit(Wide, sparse, C=4, steps=3, batch_size=200, autocast=True)
    assert [dtype for n, dtype in passes if n == 200] == [torch.float32]  # all else is done without the empty inputs
    assert torch.bfloat16 in {dtype for _, dtype in passes}
