"""Mistakes that people make with networks and data of their own: each ends in one sentence before any work starts."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pd_helpers as pdh
from pd_helpers.core.apd import APD
from pd_helpers.core.method import Method
from pd_helpers.core.spd import SPD

pytestmark = pytest.mark.usefixtures("one_thread", "as_a_user", "no_work")

VECTORS, TOKENS = torch.rand(40, 6), torch.randint(10, (40, 5))
SPD_CONFIG = pdh.SPDConfig(C=3, d_gate=2, steps=4, batch_size=8)


@pytest.fixture
def no_work(monkeypatch):
    """Work that a mistake must never reach."""

    def work(*_):
        pytest.fail("work has begun")

    for kind, name in ((APD, "train"), (SPD, "train"), (Method, "warm_up")):
        monkeypatch.setattr(kind, name, work)


class Of(nn.Module):
    """A network with an embedding and two layers, whose forward is given."""

    def __init__(self, forward: Callable[..., Any]):
        super().__init__()
        self.embed, self.a, self.b = nn.Embedding(10, 6), nn.Linear(6, 5), nn.Linear(5, 4)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


class WithMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 4)

    def forward(self, x, mask=None):
        return self.a(x)


def vectors():
    return Of(lambda net, x: net.b(net.a(x).relu()))


def tokens():
    return Of(lambda net, x: net.b(net.a(net.embed(x)).relu()))


def with_parts():
    return Of(lambda net, x: (net.b(net.a(x)), x))


def broken():
    network = vectors()
    with torch.no_grad():
        network.a.weight[0, 0] = torch.nan
    return network


class Mistake(NamedTuple):
    """Arguments of `fit`, and how the sentence begins or goes on."""

    message: str
    network: Callable[[], nn.Module] = vectors
    data: Any = VECTORS
    layers: Any = ("a", "b")
    more: dict[str, Any] = {}  # noqa: RUF012


LABELLED = DataLoader(TensorDataset(VECTORS, torch.zeros(40)), batch_size=8)
MISTAKES = {
    "a layer that is not there": Mistake(r"no layer 'c'; {\"a\": 20} works", layers=["c"]),
    "a pattern that names none": Mistake(
        r"layers has 'c\*', which no layer .* matches; {\"a\": 20} works", layers=["c*"]
    ),
    "a container": Mistake("'' is an? Of, not a layer that can be decomposed", layers=[""]),
    "whole numbers for a network of real ones": Mistake(
        r"does not take what data gives, int64 of shape \(2, 5\).*batch.to\(torch.float32\) may work", data=TOKENS
    ),
    "real numbers for tokens": Mistake("does not take what data gives, float32", network=tokens),
    "another precision": Mistake(
        r"does not take .* float64.*batch.to\(torch.float32\) may work", data=VECTORS.double()
    ),
    "tokens out of range": Mistake("does not take .* index out of range", network=tokens, data=TOKENS + 5),
    "another width": Mistake(r"does not take .* shape \(2, 7\)", data=torch.rand(40, 7)),
    "an output that is a tuple": Mistake(r"gives \(a Tensor.*; output=lambda out: out\[0\] works", network=with_parts),
    "a picker that picks a tuple": Mistake(
        r"output must pick one tensor .* but gives \(.*; output=lambda out: out\[0\] works",
        network=with_parts,
        more={"output": lambda out: out},
    ),
    "a picker that fails": Mistake(
        r"output cannot pick .* has no attribute 'logits'.*; output=lambda out: out\[0\] works",
        network=with_parts,
        more={"output": lambda out: out.logits},
    ),
    "a picker that is none": Mistake("output must be a function or None, but is 'logits'", more={"output": "logits"}),
    "a picker of inputs that is none": Mistake("inputs must be a function .* but is 'image'", more={"inputs": "image"}),
    "an iterator without batches": Mistake("data must give batches, but .* at its end", data=iter([])),
    "a loader without batches": Mistake("data must .* empty|data must hold", data=DataLoader([], batch_size=3)),
    "an iterator for several initialisations": Mistake(
        "n_init is 2, but data is an iterator, which can be read only once; n_init=1 works",
        data=iter([VECTORS[:8]] * 9),
        more={"config": SPD_CONFIG.replace(n_init=2)},
    ),
    "labels that could be a mask": Mistake(
        r"could take 1, as x, or more, as x, mask; inputs=lambda batch: batch\[0\] works",
        network=WithMask,
        data=LABELLED,
        layers=["a"],
    ),
    "names that forward does not take": Mistake(
        r"data gives? 'y', which forward\(x, mask=None\) does not take",
        network=WithMask,
        data={"x": VECTORS, "y": VECTORS},
        layers=["a"],
    ),
    "tensors of different lengths": Mistake("as many rows .* 40, 39", data=(VECTORS, VECTORS[1:])),
    "texts": Mistake("data must be .* but is 'images/'", data="images/"),
    "a class": Mistake("data must be .* but is the class TensorDataset", data=TensorDataset),
    "inputs that are not finite": Mistake("data gives numbers that are not finite", data=VECTORS / 0),
    "weights that are not finite": Mistake("not finite", network=broken),
    "a loss that is a vector": Mistake(
        r"output_loss must give one finite number for a batch, but gives a tensor of shape \(2, 4\)",
        more={"config": SPD_CONFIG.replace(output_loss=lambda a, b: (a - b).square())},
    ),
    "a loss of another name": Mistake(
        "output_loss must be 'mse' or 'kl' or a function, but is 'mae'",
        more={"config": lambda: SPD_CONFIG.replace(output_loss="mae")},
    ),
    "a network that is a class": Mistake(
        "target must be a network, but is the class Linear", network=lambda: nn.Linear
    ),
    "a layer that is not called": Mistake("never called 'b' as a module", network=lambda: Of(lambda net, x: net.a(x))),
    "KL with one class": Mistake(
        "output_loss is 'kl', which compares .* two classes or more",
        network=lambda: Of(lambda net, x: net.b(net.a(x))[:, :1]),
        more={"config": SPD_CONFIG.replace(output_loss="kl")},
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_in_one_sentence(name):
    mistake = MISTAKES[name]
    more = {**mistake.more}

    def fit():
        config = more.pop("config", SPD_CONFIG)
        config = config() if callable(config) else config
        layers = list(mistake.layers)
        pdh.fit(mistake.network(), config, mistake.data, layers, device="cpu", show_progress=False, **more)

    with pytest.raises((TypeError, ValueError), match=mistake.message) as error:
        fit()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_an_iterator_that_ends_says_after_how_many_batches(monkeypatch):
    monkeypatch.undo()
    batches = (torch.rand(8, 6) for _ in range(3))
    with pytest.raises(ValueError, match="data is an iterator that ended after 3 batches; a DataLoader"):
        pdh.fit(vectors(), SPD_CONFIG, batches, ["a"], device="cpu", show_progress=False)
