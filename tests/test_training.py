"""Learning rates by hand, devices, random streams, and noticing a loss that blew up."""

import pytest
import torch
from networks import draw
from torch import nn

from pd_helpers.core.apd import APDConfig
from pd_helpers.core.training import STREAMS, adam, generator, learning_rate, pick_device, progress, set_learning_rate


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


def test_the_learning_rate_set_is_the_one_the_next_step_takes():
    p = nn.Parameter(draw(3, 2))
    q = p.detach().clone().requires_grad_()
    optimizer, truth = adam([p], lr=1.0), Adam([q])
    for lr in (0.1, 0.3, 0.05):
        optimizer.zero_grad()
        (p**2 * torch.arange(3.0).unsqueeze(1)).sum().backward()
        set_learning_rate(optimizer, lr)
        optimizer.step()
        truth.step((q**2 * torch.arange(3.0).unsqueeze(1)).sum(), lr)
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12, check_dtype=True)


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
