"""A network and data of one's own: outputs of any shape, few rows, rows that depend on one another, and promises."""

import hashlib
import itertools
from collections.abc import Set

import pytest
import torch
import torch.nn.functional as F
from networks import MLP, SHARP, draw
from torch import Generator, nn

import pd_helpers as pdh
from pd_helpers.core import spd
from pd_helpers.core.attributions import attributions
from pd_helpers.core.method import Method
from pd_helpers.runs import api
from pd_helpers.runs.validation import batch_fingerprint

pytestmark = pytest.mark.usefixtures("one_thread", "quick_evaluation")

SPD = pdh.SPDConfig(C=4, d_gate=3, steps=5, batch_size=16)
APD = pdh.APDConfig(C=4, steps=5, batch_size=16, top_k=2.0)
BOTH = pytest.mark.parametrize("config", [SPD, APD], ids=["spd", "apd"])


def data(n, generator):
    return torch.rand(n, 6, generator=generator)


def sparse(n, generator):
    return data(n, generator) * (torch.rand(n, 1, generator=generator) < 0.3)


def network(*last, d_out=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, d_out), *last)


def fit(config=SPD, target=None, data=data, layers=("0", "2")):
    layers = list(layers) if isinstance(layers, tuple) else layers
    return pdh.fit(target or network(), config, data, layers, show_progress=False, device="cpu")


def assert_same(mine, theirs):
    for a, b in zip(mine.components.factors, theirs.components.factors, strict=True):
        assert torch.equal(a, b)
    assert mine.metrics == theirs.metrics


# Outputs


@BOTH
@pytest.mark.parametrize(("d_out", "reshape"), [(1, nn.Flatten(0)), (4, nn.Unflatten(1, (2, 2)))], ids=["flat", "deep"])
def test_the_shape_of_the_output_does_not_matter(config, d_out, reshape):
    assert_same(fit(config, network(reshape, d_out=d_out)), fit(config, network(d_out=d_out)))


@pytest.mark.parametrize(("d_out", "reshape"), [(1, nn.Flatten(0)), (4, nn.Unflatten(1, (2, 2)))], ids=["flat", "deep"])
def test_attributions_are_means_over_all_of_the_output(d_out, reshape):
    x, directions = draw(7, 6), {"0": draw(3, 5, 6, seed=1)}
    plain, other = network(d_out=d_out).double(), network(reshape, d_out=d_out).double()
    torch.testing.assert_close(attributions(other, x, directions), attributions(plain, x, directions), **SHARP)


class Answers(nn.Module):
    """Gives something other than one output for each input."""

    def __init__(self, answer):
        super().__init__()
        self.layer, self.answer, self.table = nn.Linear(6, 4), answer, torch.zeros(4096, 4)

    def forward(self, x):
        return self.answer(self, self.layer(x))


def into_the_table(module, y):
    module.table[: len(y)] = y.detach()
    return module.table[: len(y)]


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda module, y: (y, y),
            r"answer 2 inputs with a tensor .* gives \(a Tensor.*output=lambda out: out\[0\] works",
        ),
        (lambda module, y: y.mean(), r"gives torch.float32 of shape \(\)"),
        (lambda module, y: y.argmax(1), r"gives torch.int64 of shape \(2,\)"),
        (lambda module, y: F.dropout(y, 0.2), "other outputs for the same inputs, even in evaluation mode"),
        (into_the_table, "all its outputs in one and the same tensor"),
    ],
    ids=["tuple", "scalar", "class", "dropout that is always on", "one tensor"],
)
def test_outputs_that_cannot_be_compared_are_refused(answer, message):
    with pytest.raises(ValueError, match=message):
        fit(target=Answers(answer), layers=("layer",))


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("reshape", [nn.Identity(), nn.Flatten(0)], ids=["one logit", "flat"])
def test_probabilities_of_one_class_are_refused_before_any_work(reshape, monkeypatch):
    monkeypatch.setattr(Method, "warm_up", lambda self: pytest.fail("work has begun"))
    config = SPD.replace(output_loss="kl")
    with pytest.raises(ValueError, match="output_loss is 'kl', which compares .* two classes or more"):
        fit(config, network(reshape, d_out=1))


# Few rows


TABLE = torch.rand(10, 6, generator=Generator().manual_seed(3))


@BOTH
def test_a_data_set_smaller_than_the_batch(config):
    """Always the whole table, whether ten inputs are asked for or more."""

    def rows(n, generator):
        return TABLE[:n]

    many, ten = (fit(config.replace(batch_size=n), data=rows) for n in (1000, 10))
    assert_same(many, ten)
    components, draws = many.components, Generator().manual_seed(4)  # the evaluation's, of seed 0
    masks = many.method.sample_masks(many.importances(TABLE), draws)
    error = (components(TABLE, masks).output - many.target(TABLE)).square().mean()
    assert many.metrics["recon"] == pytest.approx(error.item(), rel=1e-5)


@BOTH
def test_a_batch_without_rows_is_refused(config):
    with pytest.raises(ValueError, match=r"a batch must have one input per row, but has shape \(0, 6\)"):
        fit(config, data=lambda n, g: data(0 if n == 16 else n, g))


@pytest.mark.usefixtures("as_a_user")
@BOTH
def test_importances_of_what_has_no_rows_are_refused(config):
    run = fit(config)
    for x, error, message in (
        (TABLE.numpy(), TypeError, "x must be a tensor with one input per row, but is a ndarray"),
        ([[0.0] * 6], TypeError, "x must be a tensor with one input per row, but is a list"),
        (TABLE[0], ValueError, r"x must have one input per row, but has shape \(6,\)"),
        (TABLE[:0], ValueError, r"x must have one input per row, but has shape \(0, 6\)"),
    ):
        with pytest.raises(error, match=message):
            run.importances(x)


# Rows that depend on one another


class Coupled(nn.Module):
    """Without a bias before the decomposed layer, so that empty rows would be merged if rows were independent."""

    def __init__(self, couple):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.couple = nn.Linear(6, 5, bias=False), nn.Linear(5, 4), couple

    def forward(self, x):
        return self.second(torch.relu(self.couple(self.first(x))))


COUPLINGS = {
    "centred": lambda h: h - h.mean(0),
    "softmax": lambda h: h.softmax(0),
    "cumulative": lambda h: h.cumsum(0),
    "next row": lambda h: h + h.roll(-1, 0),
    "largest": lambda h: h / (h.abs().amax(0) + 1e-3),
    "standardised": lambda h: (h - h.mean(0)) / (h.std(0) + 1e-5),
}


@pytest.mark.parametrize("name", COUPLINGS)
def test_all_rows_are_computed_where_they_depend_on_one_another(name, monkeypatch):
    target, x = Coupled(COUPLINGS[name]), sparse(50, Generator().manual_seed(0))
    for config in (SPD, APD):
        run = fit(config, target, sparse, ("first",))
        batch = run.components.merge_empty_rows(x)
        assert torch.equal(batch.rows, x)
        torch.testing.assert_close(run.components.target_forward(batch.rows).output, target(x).detach())
    whole = fit(SPD, target, sparse, ("second",)).importances(x)["second"]
    monkeypatch.setattr(spd, "CHUNK", 7)
    torch.testing.assert_close(fit(SPD, target, sparse, ("second",)).importances(x)["second"], whole)


def test_empty_rows_are_merged_where_they_do_not():
    def squeezed(h):
        return h.unsqueeze(1).squeeze()  # a batch of one loses its dimension

    x = sparse(50, Generator().manual_seed(0))
    for couple in (torch.tanh, squeezed):
        model = pdh.decompose(Coupled(couple), {"first": 3})
        batch = model.merge_empty_rows(x)
        assert len(batch.rows) == 1 + int(x.any(dim=1).sum()) < 50
        assert batch.counts.sum() == 50


def test_a_first_batch_of_empty_rows_proves_nothing():
    model = pdh.decompose(Coupled(COUPLINGS["centred"]), {"first": 3})
    model.merge_empty_rows(torch.zeros(5, 6))
    x = sparse(50, Generator().manual_seed(0))
    assert torch.equal(model.merge_empty_rows(x).rows, x)


# Promises


def test_data_that_the_generator_does_not_decide_are_refused():
    counter = itertools.count()
    for function in (
        lambda n, generator: torch.rand(n, 6),
        lambda n, generator: torch.full((n, 6), float(next(counter))),
        lambda n, generator: TABLE[torch.randperm(10)[:n]],
        lambda n, generator: torch.rand(n, 6, generator=generator).mul_(next(counter)),
    ):
        with pytest.raises(
            ValueError, match=r"other inputs for the same generator.*torch.rand\(batch_size, 8, generator="
        ):
            fit(data=function)


def test_data_in_one_tensor_used_over_and_over_are_compared_too():
    tensor = torch.zeros(5000, 6)

    def filled(n, generator):
        return tensor[:n].uniform_(generator=generator)

    assert_same(fit(data=filled), fit(data=lambda n, g: torch.zeros(n, 6).uniform_(generator=g)))
    with pytest.raises(ValueError, match="other inputs for the same generator"):
        fit(data=lambda n, generator: tensor[:n].uniform_())


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("given", [3, "images", None, nn.Linear(3, 2), {1, 2}])
def test_what_gives_no_data_is_refused(given):
    with pytest.raises(TypeError, match="data must be a function.*torch.rand"):
        fit(data=given)


def test_inputs_that_require_gradients_are_refused():
    encoder = nn.Linear(6, 6)
    with pytest.raises(ValueError, match=r"inputs that require gradients; return inputs.detach\(\)"):
        fit(data=lambda n, g: encoder(data(n, g)))


class AnyOrder(Set):
    """A set that gives its members in this order; Python's own has another one in every process."""

    def __init__(self, *members):
        self.members = members

    def __iter__(self):
        return iter(self.members)

    def __len__(self):
        return len(self.members)

    def __contains__(self, member):
        return member in self.members


def test_layers_without_an_order_have_the_networks():
    truth = fit(layers=["0", "2"])
    for layers in (AnyOrder("0", "2"), AnyOrder("2", "0"), {"2", "0"}, frozenset(("0", "2"))):
        assert_same(fit(layers=layers), truth)


def test_layers_with_an_order_keep_it():
    for layers in (["2", "0"], {"2": 4, "0": 4}.keys(), {"2": 4, "0": 4}, (path for path in ("2", "0"))):
        assert list(fit(layers=layers).components.layers) == ["2", "0"]


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("layers", [3, [0, 2], "0", {"0", "7"}])
def test_layers_that_are_no_paths_are_refused(layers):
    with pytest.raises((TypeError, ValueError), match="layers must be a list of paths, but is|no layer '7'"):
        fit(layers=layers)


def test_the_fingerprint_of_data():
    first = batch_fingerprint(data, 0)
    assert first == batch_fingerprint(lambda n, g: torch.rand((n, 6), generator=g), 0, torch.device("cpu"))
    others = [
        batch_fingerprint(data, 1),
        batch_fingerprint(lambda n, g: 1 - data(n, g), 0),
        batch_fingerprint(lambda n, g: data(n, g).double(), 0),
        batch_fingerprint(lambda n, g: data(n, g).view(n // 2, 12), 0),
    ]
    assert len({first, *others}) == 5
    x = torch.arange(6.0).view(2, 3).T  # not in the order of memory
    known = hashlib.sha256(b"(3, 2) torch.float32" + x.contiguous().numpy().tobytes())
    assert batch_fingerprint(lambda n, g: x, 0) == known.hexdigest()


def test_checks_leave_the_runs_own_numbers_alone():
    """The stream of batches begins where it would without them."""
    seen = []

    def watched(n, generator):
        seen.append(data(n, generator))
        return seen[-1]

    run = api.begin(MLP(d_in=6), SPD, watched, ["fc1"], device="cpu")
    next(run.steps())
    assert torch.equal(seen[-1], data(16, Generator().manual_seed(3)))  # the stream "data" of seed 0
