"""Attacks against the truth by brute force, and what they leave as it was."""

import itertools

import pytest
import torch
from networks import MLP, textbook_of
from torch import nn

import pd_helpers as pdh
from benchmarks import textbook
from pd_helpers.analysis.attacks import attack, worst_corner

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def apd():
    run = pdh.shipped("apd/tms_5-2")
    x = run.data(400, torch.Generator().manual_seed(0))
    return run, x[x.any(dim=1)]


def brute_force(run, x):
    """The largest error of every input over all sets of components that contain the active ones, by the textbook."""
    g, model = run.importances(x), textbook_of(run.components)
    active, target = g["embed"], run.target(x)
    errors = []
    for corner in itertools.product((0.0, 1.0), repeat=5):
        masks = torch.maximum(active, torch.tensor(corner))
        output = textbook.masked(model, x, dict.fromkeys(g, masks)).output
        errors.append((output - target).square().mean(dim=1))
    return torch.stack(errors).amax(dim=0)


def test_the_worst_corner_is_that_of_brute_force(apd):
    run, x = apd
    found = worst_corner(run, x)
    torch.testing.assert_close(found.errors, brute_force(run, x), rtol=1e-4, atol=1e-7)
    assert found.error == pytest.approx(found.errors.mean().item())
    output = run.components(x, found.masks).output
    torch.testing.assert_close((output - run.target(x)).square().mean(dim=1), found.errors, rtol=1e-4, atol=1e-7)


def test_the_gradient_reaches_the_best_corner_of_nearly_every_input(apd):
    run, x = apd
    found = attack(run, x, 40, "per input", restarts=5, show_progress=False)
    assert (found.errors >= 0.95 * brute_force(run, x)).float().mean() >= 0.95
    assert len(found.trajectory) == 5 * 41
    assert (found.trajectory.diff() >= 0).all()


@pytest.mark.parametrize("scope", ["shared", "per input"])
@pytest.mark.parametrize("name", ["apd/tms_5-2", "spd/tms_5-2_id"])
def test_what_is_found_is_what_its_masks_do(name, scope):
    run = pdh.shipped(name)
    x = run.data(200, torch.Generator().manual_seed(1))
    found = pdh.attack(run, x, 5, scope, show_progress=False)
    error = (run.components(x, found.masks).output - run.target(x)).square().mean().item()
    assert found.error == pytest.approx(error, rel=1e-4)
    assert found.error > attack(run, x, 0, scope, show_progress=False).error
    for use, g in run.importances(x).items():
        assert (found.masks[use] >= g - 1e-6).all()
        assert (found.masks[use] <= 1 + 1e-6).all()
    ends = {tuple(r.shape[:-1]) for r in found.sources.values()}
    assert ends == ({()} if scope == "shared" else {(200,)})
    assert all(factor.grad is None for factor in run.components.factors)


def test_many_inputs_are_attacked_in_parts(monkeypatch, apd):
    run, x = apd
    whole = attack(run, x, 5, step_size=0.3, show_progress=False)
    monkeypatch.setattr("pd_helpers.analysis.attacks.ROWS", 10)
    in_parts = attack(run, x, 5, step_size=0.3, show_progress=False)
    torch.testing.assert_close(whole.errors, in_parts.errors, rtol=1e-4, atol=1e-7)


class Reader(nn.Module):
    """Tokens → the mean of a nonlinear function of their embeddings → logits."""

    def __init__(self):
        super().__init__()
        self.embedding, self.up, self.down = nn.Embedding(7, 5), nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, tokens):
        return self.down(torch.relu(self.up(self.embedding(tokens))).mean(dim=1))


def run_of(config, network, data, layers):
    torch.manual_seed(0)
    return pdh.fit(network(), config, data, layers, show_progress=False, device="cpu")


@pytest.mark.parametrize("config", [pdh.SPDConfig, pdh.VPDConfig])
@pytest.mark.parametrize("scope", ["shared", "per input"])
def test_tokens_and_logits(config, scope):
    settings = config(C=4, steps=3, batch_size=8, output_loss="kl")
    tokens = torch.randint(0, 7, (8, 4), generator=torch.Generator().manual_seed(0))
    run = run_of(settings, Reader, lambda n, draw: torch.randint(0, 7, (n, 4), generator=draw), ["embedding", "up"])
    found = pdh.attack(run, tokens, 3, scope, show_progress=False)
    n = 4 + isinstance(settings, pdh.VPDConfig)
    assert found.sources["up"].shape == ((n,) if scope == "shared" else (8, 4, n))
    assert found.masks["embedding"].shape == (8, 4, n)
    assert found.error > 0
    with pytest.raises(ValueError, match="corners needs one row for each input, but embedding has rows of shape"):
        worst_corner(run, tokens)


class AlwaysOn(MLP):
    """An MLP none of whose neurons is ever off, which makes it linear."""

    def __init__(self):
        super().__init__()
        torch.nn.init.constant_(self.fc1.bias, 20.0)


def test_delta_is_attacked_too():
    """Components of zero leave the whole matrix to Δ. Then only its mask m matters, and the error is (1 - m)² ‖A W x‖²
    on average over outputs, with A the matrix after W: it climbs from every start down to m = 0."""
    run = run_of(
        pdh.VPDConfig(C=2, steps=1, batch_size=8), AlwaysOn, lambda n, draw: torch.randn(n, 3, generator=draw), ["fc1"]
    )
    with torch.no_grad():
        run.components.factors[0].zero_()
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert (run.target.fc1(x) > 1).all()
    error = (x @ run.target.fc1.weight.T @ run.target.fc2.weight.T).square().mean(dim=1)
    for found in (attack(run, x, 40, "per input", show_progress=False), worst_corner(run, x, 3)):
        torch.testing.assert_close(found.errors, error, rtol=1e-3, atol=1e-6)
        assert (found.masks["fc1"][:, -1] == 0).all()


def test_a_loss_of_the_user_s_own_is_what_is_climbed():
    def loss(output, target):
        return (output - target).abs().mean() if output.sum() > -1e9 else 0.0  # looks at a number

    config = pdh.SPDConfig(C=3, steps=2, batch_size=8, output_loss=loss)
    run = run_of(config, MLP, lambda n, draw: torch.randn(n, 3, generator=draw), ["fc1", "fc2"])
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    found = attack(run, x, 3, show_progress=False)
    truth = (run.components(x, found.masks).output - run.target(x)).abs().mean(dim=1)
    torch.testing.assert_close(found.errors, truth.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": -1}, "steps must be a whole number of at least 0, but is -1; 20 works"),
        ({"restarts": 0}, "restarts must be a whole number of at least 1, but is 0"),
        ({"scope": "all"}, "scope must be 'shared' or 'per input', but is 'all'; 'shared' works"),
        ({"step_size": 0}, "step_size must be above 0 and at most 1, but is 0; 0.1 works"),
        ({"step_size": True}, "step_size must be above 0 and at most 1, but is True; 0.1 works"),
    ],
)
def test_arguments_that_cannot_work(apd, arguments, message):
    run, x = apd
    with pytest.raises(ValueError, match=message):
        attack(run, x, **arguments)


def test_corners_without_number(apd):
    with pytest.raises(ValueError, match="n_free must be a whole number from 1 to 20, but is 0; 10 works"):
        worst_corner(*apd, n_free=0)
