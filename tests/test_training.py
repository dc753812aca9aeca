"""Learning rates by hand, devices, random streams, and noticing a loss that blew up."""

import pytest
import torch
from networks import draw
from torch import nn

from pd_helpers.apd import APDConfig
from pd_helpers.training import STREAMS, State, adam, generator, learning_rate, pick_device, progress, warm_up


class Adam:
    """Kingma and Ba 2015, algorithm 1."""

    def __init__(self, parameters):
        self.parameters, self.t = parameters, 0
        self.m = [torch.zeros_like(p) for p in parameters]
        self.v = [torch.zeros_like(p) for p in parameters]

    def step(self, loss, lr):
        self.t += 1
        grads = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            for p, g, m, v in zip(self.parameters, grads, self.m, self.v, strict=True):
                m.copy_(0.9 * m + 0.1 * g)
                v.copy_(0.999 * v + 0.001 * g**2)
                p -= lr * (m / (1 - 0.9**self.t)) / ((v / (1 - 0.999**self.t)).sqrt() + 1e-8)


def rates(schedule, warmup, steps=10, lr=2.0):
    config = APDConfig(steps=steps, lr=lr, schedule=schedule)
    return [learning_rate(step, config, warmup) for step in range(steps)]


def test_constant_rate_without_and_with_warm_up():
    assert rates("constant", 0.0) == [2.0] * 10
    assert rates("constant", 0.4) == pytest.approx([0.5, 1.0, 1.5, 2.0] + [2.0] * 6)


def test_cosine_starts_at_the_top_and_is_half_way_in_the_middle():
    cosine = rates("cosine", 0.0)
    assert cosine[0] == 2.0
    assert cosine[5] == pytest.approx(1.0)
    assert cosine[9] == pytest.approx(1 + -0.9510565163)  # 1 + cos(0.9 π)


def test_cosine_begins_where_the_warm_up_ends():
    # Two steps up, then a half cosine over eight.
    assert rates("cosine", 0.2) == pytest.approx(
        [1.0, 2.0, 2.0, 1.9238795, 1.7071068, 1.3826834, 1.0, 0.6173166, 0.2928932, 0.0761205]
    )


def test_warm_up_may_take_all_steps_and_may_round_to_none():
    assert rates("cosine", 1.0) == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates("constant", 0.05) == [2.0] * 10


def test_pick_device():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or mps, but is 'tpu'; auto works"):
        pick_device("tpu")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_this_machine_lacks_is_refused(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"device is '{device}', but torch finds no .* works"):
        pick_device(device)


def test_streams_of_all_seeds_differ():
    first = {torch.rand(1, generator=generator(seed, stream)).item() for seed in range(20) for stream in STREAMS}
    assert len(first) == 20 * len(STREAMS)


def test_a_stream_is_repeatable():
    assert torch.equal(torch.rand(9, generator=generator(3, "data")), torch.rand(9, generator=generator(3, "data")))


def test_state_applies_adam_at_the_rate_given():
    p = nn.Parameter(draw(3, 2))
    q = p.detach().clone().requires_grad_()
    state, truth = State(adam([p], lr=1.0), generator(0, "data")), Adam([q])
    for lr in (0.1, 0.3, 0.05):
        state.apply((p**2 * torch.arange(3.0).unsqueeze(1)).sum(), lr)
        truth.step((q**2 * torch.arange(3.0).unsqueeze(1)).sum(), lr)
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12, check_dtype=True)
    assert state.step == 3


def test_the_first_step_with_a_non_finite_loss_is_named():
    p = nn.Parameter(torch.ones(1))
    state = State(adam([p], lr=0.1), generator(0, "data"))
    for factor in (1.0, 1.0, torch.nan, 1.0, torch.inf):
        if state.step < 3:
            state.check()
        state.apply((p * factor).sum(), 0.1)
    with pytest.raises(FloatingPointError, match="blew up at step 2; a smaller lr than 0.1"):
        state.check()


def test_a_loss_that_blows_up_and_stays_finite_is_named_too():
    p = nn.Parameter(torch.ones(1))
    state = State(adam([p], lr=0.01), generator(0, "data"))
    for size in (1.0, 1e-5, 1e-4, 9.0, 12.0, 1e-5):
        state.apply(p.square().sum() * 0 + size, 0.01)
    with pytest.raises(FloatingPointError, match="blew up at step 4; a smaller lr than 0.01"):
        state.check()


def test_a_loss_of_zero_allows_any_of_ordinary_size_after_it():
    p = nn.Parameter(torch.ones(1))
    state = State(adam([p], lr=0.01), generator(0, "data"))
    for size in (0.0, 0.9, 0.0):
        state.apply(p.square().sum() * 0 + size, 0.01)
    state.check()


def test_warm_up_lowers_the_loss_it_is_given():
    p = nn.Parameter(torch.zeros(4))
    goal = torch.tensor([0.2, -0.1, 0.3, 0.0])

    def loss():
        return (p - goal).square().mean()

    before = loss().item()
    warm_up([p], loss, 0)
    assert loss().item() == before
    warm_up([p], loss, 100)
    assert loss().item() < before / 100


def test_progress_passes_every_step_on_and_writes_to_stderr_only(capsys):
    assert list(progress(range(5), total=5, description="run")) == list(range(5))
    assert list(progress(range(5), total=5, description="run", show=False)) == list(range(5))
    written = capsys.readouterr()
    assert written.out == ""
    assert "run" in written.err


def test_apple_gpus_are_taken_only_when_asked_for_and_with_a_warning(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.warns(UserWarning, match="Apple GPUs are untested"):
        assert pick_device("mps").type == "mps"
