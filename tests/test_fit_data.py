"""Runs on data of every kind: the same twice, and after a stop the same as without one."""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import pd_helpers as pdh
from pd_helpers.core.spd import SPD

pytestmark = pytest.mark.usefixtures("one_thread", "quick_evaluation")

X = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
CONFIG = pdh.SPDConfig(C=3, d_gate=2, steps=12, batch_size=8)


class Squares(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], i


class Batches:
    """Batches that begin anew each time."""

    def __iter__(self):
        return iter(X.split(16))


KINDS = {
    "tensor": lambda: X,
    "array": lambda: X.numpy(),
    "tuple": lambda: (X, torch.zeros(40)),
    "dataset": Squares,
    "list of examples": lambda: list(X),
    "shuffled loader": lambda: DataLoader(TensorDataset(X, torch.zeros(40)), batch_size=16, shuffle=True),
    "loader": lambda: DataLoader(X, batch_size=16),
    "iterable": Batches,
    "iterator": lambda: (torch.rand(16, 6, generator=torch.Generator().manual_seed(i)) for i in range(300)),
    "function": lambda: lambda n, generator: torch.rand(n, 6, generator=generator),
}
ALL = pytest.mark.parametrize("kind", KINDS)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


def fit(data, config=CONFIG, **given):
    return pdh.fit(network(), config, data, device="cpu", show_progress=False, **given)


def assert_same(mine, theirs):
    for a, b in zip(mine.components.factors, theirs.components.factors, strict=True):
        assert torch.equal(a, b)
    assert mine.metrics == theirs.metrics
    assert mine.history.equals(theirs.history)


@ALL
def test_the_same_data_give_the_same_run(kind):
    first = fit(KINDS[kind]())
    target, data = network(), KINDS[kind]()
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    assert_same(pdh.fit(target, CONFIG, data, device="cpu", show_progress=False), first)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


@ALL
def test_a_stopped_run_continues_where_it_was(kind, tmp_path, monkeypatch):
    whole = fit(KINDS[kind]())
    losses = SPD._losses

    def stopping(self, *arguments):
        if self.step == 7:
            raise KeyboardInterrupt
        return losses(self, *arguments)

    monkeypatch.setattr("pd_helpers.runs.files.CHECKPOINT_EVERY", 0.0)
    monkeypatch.setattr("pd_helpers.runs.files.CHECKPOINT_SHARE", 1e9)
    monkeypatch.setattr(SPD, "_losses", stopping)
    with contextlib.suppress(KeyboardInterrupt):
        fit(KINDS[kind](), out=tmp_path / "run")
    monkeypatch.setattr(SPD, "_losses", losses)
    resumed = pdh.resume(tmp_path / "run", target=network(), data=KINDS[kind](), show_progress=False)
    assert_same(resumed, whole)


def test_a_loader_gives_batches_of_its_own_size():
    run = fit(KINDS["loader"]())
    assert run.config.batch_size == 16
    assert run.data(5, torch.Generator()).shape == (16, 6)


def test_the_seed_shuffles():
    """Two seeds see other batches first; the first of each is some 16 of the rows."""
    loader = KINDS["shuffled loader"]()
    first = [fit(loader, seed=seed).data(16, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert not torch.equal(*first)
    for batch in first:
        assert (batch[:, None] == X).all(dim=-1).any(dim=1).all()


def test_other_data_on_resume_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(SPD, "_losses", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with contextlib.suppress(KeyboardInterrupt):
        fit(X, out=tmp_path / "run")
    with pytest.raises(ValueError, match="data gives other inputs"):
        pdh.resume(tmp_path / "run", target=network(), data=X + 1, show_progress=False)


def test_a_network_that_computes_something_else_is_not_taken_for_the_one_that_was_decomposed(tmp_path):
    fit(X).save(tmp_path / "run")
    other = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 4))
    before = other[0].weight.clone()
    with pytest.raises(ValueError, match="other outputs, .* such as an activation function"):
        pdh.load(tmp_path / "run", target=other)
    assert torch.equal(other[0].weight, before)
    assert pdh.load(tmp_path / "run", target=network()).step == 12


def absolute(output, target):
    """A loss of one's own."""
    return (output - target).abs().mean()


@pytest.mark.parametrize("method", [CONFIG, pdh.APDConfig(C=3, steps=12, batch_size=8, top_k=1.5)], ids=["spd", "apd"])
def test_a_loss_of_ones_own(method, tmp_path):
    config = method.replace(output_loss=absolute)
    run = fit(X, config)
    assert run.metrics["recon"] > 0
    run.save(tmp_path / "run")
    assert pdh.load(tmp_path / "run", target=network()).metrics == run.metrics
    loaded = pdh.load(tmp_path / "run", target=network(), data=X, output_loss=absolute)
    loaded.metrics = {}
    loaded.save(tmp_path / "again")
    assert loaded.metrics == run.metrics
    x = X[:9]
    own = run.method.batch_losses(x, torch.Generator().manual_seed(0))
    field = "recon" if method is CONFIG else "minimality"
    mse = fit(X, method)  # the same masks on the same step, compared otherwise
    assert getattr(own, field) != getattr(mse.method.batch_losses(x, torch.Generator().manual_seed(0)), field)


def test_a_loss_of_ones_own_equals_the_one_it_copies():
    mine = fit(X, CONFIG.replace(output_loss=lambda output, target: (output - target).square().mean()))
    for a, b in zip(mine.components.factors, fit(X).components.factors, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def images(n_batches):
    """An iterator over so many batches of images, of which each has 36 patches."""
    return (torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(n_batches))


def test_an_iterator_that_ends_is_measured_on_what_was_left():
    run = pdh.fit(nn.Conv2d(1, 2, 3), CONFIG, images(15), device="cpu", show_progress=False)
    assert run.step == 12


def test_an_error_of_data_while_a_run_is_measured_is_not_taken_for_their_end(tmp_path):
    torch.manual_seed(0)
    run = pdh.fit(nn.Conv2d(1, 2, 3), CONFIG, torch.rand(40, 1, 8, 8), device="cpu", show_progress=False)
    calls = iter(range(100))

    def failing(n, generator):
        if next(calls) == 3:
            raise ValueError("the disk is gone")
        return torch.rand(n, 1, 8, 8, generator=generator)

    run.data = failing
    run.components.factors[0].data.mul_(2)  # so that it is measured again
    with pytest.raises(ValueError, match="the disk is gone"):
        run.save(tmp_path / "run")
