"""Learning rates by hand, devices, random streams, and noticing a loss that blew up."""

import numpy as np
import pytest
import torch
from networks import draw
from torch import nn

from pd_helpers.core.apd import APDConfig
from pd_helpers.core.training import (
    LARGEST_SEED,
    STREAMS,
    adam,
    generator,
    learning_rate,
    pick_device,
    progress,
    set_learning_rate,
)

pytestmark = pytest.mark.usefixtures("as_a_user")


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


@pytest.mark.parametrize("name", ["cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)])
def test_a_device_may_be_an_object_and_have_a_number(name):
    assert pick_device(name) == torch.device("cpu")


def test_a_cuda_device_with_a_number_is_taken_if_it_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    assert pick_device(torch.device("cuda")) == torch.device("cuda")
    with pytest.raises(ValueError, match="device is 'cuda:2', but torch finds no such CUDA device here; .* works"):
        pick_device("cuda:2")


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


def test_torch_uses_32_bits_of_a_seed_and_ours_stay_below():
    def first(seed: int) -> float:
        return torch.rand(1, generator=torch.Generator().manual_seed(seed)).item()

    assert first(7) == first(7 + 2**32)  # why there is a largest seed
    own = [LARGEST_SEED * len(STREAMS) + i for i in range(len(STREAMS))]
    assert max(own) < 2**32 <= (LARGEST_SEED + 1) * len(STREAMS) + len(STREAMS) - 1
    streams = [torch.rand(1, generator=generator(LARGEST_SEED, stream)).item() for stream in STREAMS]
    assert streams == [first(seed) for seed in own]


@pytest.mark.parametrize("seed", [-1, LARGEST_SEED + 1, 2**61, 2**200, 0.0, None, True, "1"])
def test_other_seeds_have_no_stream(seed):
    with pytest.raises(
        ValueError, match="seed must be a whole number of at (least 0|most 858993458), but is .*; 0 works"
    ):
        generator(seed, "data")


@pytest.mark.parametrize("three", [np.int64(3), np.uint8(3), torch.tensor(3)])
def test_seeds_may_be_numbers_of_other_libraries(three):
    assert torch.equal(torch.rand(9, generator=generator(three, "data")), torch.rand(9, generator=generator(3, "data")))


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
