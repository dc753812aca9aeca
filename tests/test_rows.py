"""Rows of any shape: positions are rows like inputs, and a mask of an input holds at all of them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from kinds import NETWORKS, Attention, Transformer, make, sequential, tokens, with_weights
from networks import SHARP, draw, randomize
from torch import Generator, nn

from pd_helpers.core import spd
from pd_helpers.core.apd import APD, APDConfig
from pd_helpers.core.components import ComponentModel, decompose
from pd_helpers.core.losses import kl_divergence
from pd_helpers.core.networks.batches import select
from pd_helpers.core.spd import SPD, SPDConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def decomposed(network, layers, rank, output=None):
    """A network in float64 with random components."""
    model = decompose(network, dict.fromkeys(layers, 3), rank=rank, output=output)
    for i, factor in enumerate(model.factors):
        factor.data.copy_(0.7 * draw(*factor.shape, seed=900 + i))
    return model


def spd_of(network, layers, output=None, **options):
    """SPD in float64 with random components and importance functions, at step 0."""
    model = decomposed(network, layers, 1, output)
    config = SPDConfig(C=3, d_gate=2, batch_size=6, importance_p=1.5, **options)
    method = SPD(model, config, init=Generator(), draw=Generator())
    randomize(method.importance, seed=2)
    return method


def apd_of(network, layers, output=None):
    """APD in float64 with random components, one of them active per input on average, at step 0."""
    model = decomposed(network, layers, 2, output)
    config = APDConfig(C=3, rank=2, batch_size=6, top_k=1.0)
    return APD(model, config, init=Generator(), draw=Generator())


def losses_and_gradients(method, x, seed=0):
    """The losses of one batch by name, and the gradient of their sum with respect to all that is trained."""
    losses = method.batch_losses(x, Generator().manual_seed(seed))._asdict()
    return losses, torch.autograd.grad(sum(losses.values()), list(method.parameters().values()))


class Picked(nn.Module):
    """A network and a function of its output."""

    def __init__(self, network, function):
        super().__init__()
        self.network, self.function = network, function

    def forward(self, *x, **named):
        return self.function(self.network(*x, **named))


# Positions are rows


@pytest.mark.parametrize("shape", [(6, 5, 3), (2, 3, 5, 3)])
@pytest.mark.parametrize("output_loss", ["mse", "kl"])
def test_positions_and_inputs_are_the_same_where_the_network_treats_them_so(shape, output_loss):
    network = randomize(sequential(3, 4, 2))
    x, method = draw(*shape), spd_of(network, ["0", "2"], output_loss=output_loss)
    mine, truth = losses_and_gradients(method, x), losses_and_gradients(method, x.reshape(30, 3))
    assert all(loss > 0 for loss in truth[0].values())
    torch.testing.assert_close(mine, truth, **SHARP)
    importances = method.importances(x.reshape(30, 3))
    torch.testing.assert_close(
        method.importances(x), {use: g.reshape(*shape[:-1], 3) for use, g in importances.items()}, **SHARP
    )


OUTPUTS = {
    "(n, T, V)": lambda y: y,
    "(n T, V)": lambda y: y.flatten(0, 1),
    "(n, T V)": lambda y: y.flatten(1),
}


@pytest.mark.parametrize("make_method", [spd_of, apd_of])
@pytest.mark.parametrize("shape", OUTPUTS)
def test_the_shape_of_the_output_does_not_matter(shape, make_method):
    network, layers, x = make("transformer, tied")
    truth = losses_and_gradients(make_method(network, layers), x)
    reshaped = Picked(network, OUTPUTS[shape])
    mine = losses_and_gradients(make_method(reshaped, [f"network.{path}" for path in layers]), x)
    torch.testing.assert_close(mine, truth, **SHARP)
    picked = make_method(network, layers, output=OUTPUTS[shape])
    torch.testing.assert_close(losses_and_gradients(picked, x), truth, **SHARP)


def test_divergence_is_the_same_for_positions_and_rows():
    network, layers, x = make("transformer")
    logits = network(x)
    method = spd_of(network, layers, output_loss="kl")
    of_rows = spd_of(network, layers, output_loss="kl", output=lambda y: y.flatten(0, 1))
    mine, truth = losses_and_gradients(of_rows, x), losses_and_gradients(method, x)
    torch.testing.assert_close(mine, truth, **SHARP)
    masks = {use: draw(*g.shape, seed=3) for use, g in method.importances(x).items()}
    q, p = method.model(x, masks).output.softmax(dim=-1), logits.softmax(dim=-1)
    divergence = (p * (p / q).log()).sum() / 30  # 6 inputs of 5 positions
    torch.testing.assert_close(kl_divergence(method.model(x, masks).output, logits), divergence, **SHARP)


@pytest.mark.parametrize("make_method", [spd_of, apd_of])
@pytest.mark.parametrize("rows", [(6,), (6, 5)])
def test_one_number_for_each_row(rows, make_method):
    """Outputs (n,) and (n, T) are as good as (n, 1) and (n, T, 1)."""
    network, x = randomize(sequential(3, 4, 1)), draw(*rows, 3)
    truth = losses_and_gradients(make_method(network, ["0", "2"]), x)
    mine = losses_and_gradients(make_method(network, ["0", "2"], output=lambda y: y.squeeze(-1)), x)
    torch.testing.assert_close(mine, truth, **SHARP)


def test_layers_with_other_rows_have_tables_of_their_own():
    network, layers, x = make("vision")
    method = spd_of(network, layers)
    inner = method.model.inner(method.model.target_forward(x).inputs)
    tables = method.importance(inner)
    assert [(tuple(table.uses), tuple(table.values.shape)) for table in tables] == [
        (("patches",), (6, 2, 3, 3)),
        (("attention.q", "attention.v", "attention.o", "head"), (6, 7, 12)),
    ]
    for table in tables:
        for use, gates in table.split().items():
            truth = method.importance.mlps[use](inner[use].squeeze(-1).flatten(0, -2)).reshape(gates.shape)
            torch.testing.assert_close(gates, truth, **SHARP)
    losses, _ = losses_and_gradients(method, x)
    g = [t.values.clamp(0, 1) + 0.01 * (t.values - 1).clamp(min=0) for t in tables]
    minimality = sum(((table + 1e-12) ** 1.5).sum(dim=-1).mean() for table in g)
    torch.testing.assert_close(losses["importance_minimality"], minimality, **SHARP)


# A component of APD is on or off for an input, at all of its rows


class Positions(nn.Module):
    """Adds positions in one of two ways: as rows (T,), or as rows (1, T)."""

    layers = ("tokens", "positions", "up", "head")

    def __init__(self, batched):
        super().__init__()
        self.batched, self.tokens, self.positions = batched, nn.Embedding(7, 4), nn.Embedding(5, 4)
        self.up, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        positions = torch.arange(x.shape[1])
        h = self.tokens(x) + self.positions(positions.unsqueeze(0) if self.batched else positions)
        return self.head(torch.tanh(self.up(h)))


class FlatInside(nn.Module):
    """Computes all positions of all inputs as rows of one matrix; `order` says which come first."""

    layers = ("first", "last")

    def __init__(self, by_input=True):
        super().__init__()
        self.by_input, self.first, self.last = by_input, nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = torch.tanh(self.first(x))
        h = self.last((h if self.by_input else h.transpose(0, 1)).flatten(0, 1))
        return h.unflatten(0, x.shape[:2]) if self.by_input else h.unflatten(0, x.shape[1::-1]).transpose(0, 1)


def with_input_masks(network, model, active, x):
    """The network's output where every input has weights of its own, Σ_c s_c(x) P_c."""
    rows = [
        with_weights(network, model, dict.fromkeys(model.layers, active[i].double()))(select(x, [i]))
        for i in range(len(active))
    ]
    return torch.cat(rows)


SPANNING = {
    **{name: lambda name=name: make(name) for name in NETWORKS},
    "rows (T,)": lambda: (randomize(Positions(False)), Positions.layers, tokens(6, 5)),
    "rows (T,), as many inputs": lambda: (randomize(Positions(False)), Positions.layers, tokens(5, 5)),
    "rows (1, T)": lambda: (randomize(Positions(True)), Positions.layers, tokens(6, 5)),
    "two positions": lambda: (randomize(Positions(False)), Positions.layers, tokens(6, 2)),
    "two positions of two inputs": lambda: (randomize(Positions(False)), Positions.layers, tokens(2, 2)),
    "one input": lambda: (randomize(Positions(True)), Positions.layers, tokens(1, 5)),
    "rows (n T)": lambda: (randomize(FlatInside()), FlatInside.layers, draw(6, 5, 3)),
}


@pytest.mark.parametrize("name", SPANNING)
def test_a_component_that_spans_layers_is_on_at_all_rows_of_an_input(name):
    network, layers, x = SPANNING[name]()
    method = apd_of(network, layers)
    model, n = method.model, len(x)
    A = method.attributions(x)
    assert A.shape == (n, 3)
    least = A.flatten().sort(descending=True).values[n - 1]  # batch top-k with one component for each input
    active = least <= A
    output = with_input_masks(network, model, active, x)
    losses = method.batch_losses(x)
    torch.testing.assert_close(losses.minimality, (output - network(x)).square().mean(), **SHARP)

    importances = method.importances(x)
    for use, g in importances.items():
        rows = model.rows(x)[use]
        assert torch.equal(g.double(), g.double().round())
        if rows[0] == n and not (use == "positions" and n <= 5):
            assert g.shape == (*rows, 3)
        per_input = g.reshape(n, -1, 3) if g.shape[0] % n == 0 else g
        assert torch.equal(per_input, active.double().unsqueeze(1).expand_as(per_input))
    torch.testing.assert_close(model(x, importances).output, output, **SHARP)


def test_rows_that_cannot_be_told_apart_are_refused():
    x = draw(6, 5, 3)
    method = apd_of(randomize(FlatInside(by_input=False)), FlatInside.layers)
    with pytest.raises(
        ValueError, match=r"makes 6 inputs into what enters 'last' of shape \(30, 4\), and which .* SPD"
    ):
        method.batch_losses(x)
    method = apd_of(randomize(sequential(3, 4, 2)), ["0"], output=lambda y: y.transpose(0, 1))
    with pytest.raises(ValueError, match=r"for 6 inputs the network gives an output of shape \(5, 6, 2\)"):
        method.batch_losses(x)
    with pytest.raises(ValueError, match=r"makes 6 inputs into its output of shape \(6, 6, 2\), and which .* SPD"):
        method.batch_losses(draw(6, 6, 3))
    spd_of(randomize(FlatInside(by_input=False)), FlatInside.layers).batch_losses(x, Generator())


class Expands(Positions):
    """Gives each input its own copy of the positions, which then cannot be different already."""

    def forward(self, x):
        h = self.positions(torch.arange(x.shape[1])).unsqueeze(0) + self.tokens(x)
        return self.head(torch.tanh(self.up(h)))


def test_positions_that_cannot_differ_between_inputs_are_refused():
    method = apd_of(randomize(Expands(False)), Expands.layers)
    with pytest.raises(ValueError, match="layers that do not read the same rows for all inputs work, and so does SPD"):
        method.batch_losses(tokens(6, 5))


# Empty rows


class Cut(nn.Module):
    """Vectors cut into pieces, which are rows of another number."""

    def __init__(self, flat):
        super().__init__()
        self.flat, self.layer, self.last = flat, nn.Linear(2, 3, bias=False), nn.Linear(9, 2)

    def forward(self, x):
        pieces = x.unflatten(1, (3, 2))
        y = self.layer(pieces.flatten(0, 1) if self.flat else pieces)
        return self.last(y.reshape(len(x), 9))


SPARSE = torch.tensor([[0.0] * 6, [1.0] * 6, [0.0] * 6, [0.0] * 6, [2.0] * 6], dtype=torch.float64)


@pytest.mark.parametrize("flat", [True, False])
def test_empty_inputs_are_not_merged_where_a_layer_reads_other_rows(flat):
    model = decompose(Cut(flat).double(), {"layer": 3}, rank=1)
    assert model.merge_empty_rows(SPARSE).rows is SPARSE
    assert len(decompose(nn.Linear(6, 2).double(), {"": 3}).merge_empty_rows(SPARSE).rows) == 3


def test_empty_inputs_are_not_merged_unless_they_are_vectors():
    cases = [
        (sequential(3, 4, 2), "0", torch.zeros(6, 5, 3)),
        (Transformer(), "up", torch.zeros(6, 5, dtype=torch.long)),
        (nn.Conv1d(2, 3, 3, bias=False), "", torch.zeros(6, 2, 5)),
    ]
    for network, path, x in cases:
        batch = decompose(network, {path: 3}).merge_empty_rows(x)
        assert batch.rows is x
        assert batch.counts.tolist() == [1] * 6
        assert batch.divisor is None


# Batches of several tensors


class Several(nn.Module):
    """Takes vectors, tokens and a mask of what counts."""

    layers = ("layer", "tokens", "last")

    def __init__(self):
        super().__init__()
        self.layer, self.tokens, self.last = nn.Linear(3, 4), nn.Embedding(7, 4), nn.Linear(4, 2)

    def forward(self, x, words, keep, scale=1.0):
        h = torch.tanh(self.layer(x) + self.tokens(words)) * scale
        return self.last(h.masked_fill(~keep.unsqueeze(-1), 0))


def several(n=6):
    return {"x": draw(n, 5, 3), "words": tokens(n, 5), "keep": draw(n, 5, seed=4) > 0}


@pytest.mark.parametrize("make_method", [spd_of, apd_of])
def test_batches_of_several_tensors(make_method):
    network, parts = randomize(Several()), several()
    by_order, by_name = tuple(parts.values()), parts | {"scale": 1.0}
    method = make_method(network, Several.layers)
    of_tuple, of_mapping = losses_and_gradients(method, by_order), losses_and_gradients(method, by_name)
    torch.testing.assert_close(of_tuple, of_mapping, **SHARP)

    whole = torch.cat([parts["x"], parts["words"].unsqueeze(-1), parts["keep"].unsqueeze(-1)], dim=-1)

    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.several = copy.deepcopy(network)

        def forward(self, x):
            return self.several(x[..., :3], x[..., 3].long(), x[..., 4] > 0)

    truth = losses_and_gradients(make_method(One(), [f"several.{path}" for path in Several.layers]), whole)
    torch.testing.assert_close(of_tuple, truth, **SHARP)


# Chunks


class Couples(nn.Module):
    """Subtracts the mean over the batch."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.layer(x)
        return self.last(h - h.mean(dim=0))


CHUNKED = SPANNING | {
    "several tensors": lambda: (randomize(Several()), Several.layers, several()),
    "a tuple": lambda: (randomize(Several()), Several.layers, tuple(several().values())),
    "attention": lambda: (randomize(Attention(4)), ("q", "o"), draw(6, 5, 4)),
}


@pytest.mark.parametrize("size", [1, 12, 25])
@pytest.mark.parametrize("name", CHUNKED)
def test_importances_in_chunks_are_those_of_all_inputs(name, size, monkeypatch):
    network, layers, x = CHUNKED[name]()
    method = spd_of(network, layers)
    truth = method.importances(x)
    monkeypatch.setattr(spd, "CHUNK", size)
    for either in (method, spd_of(network, layers)):  # one knows the network already, the other does not
        torch.testing.assert_close(either.importances(x), truth, **SHARP)


@pytest.mark.parametrize(("name", "n_chunks"), [("transformer", 3), ("linear, 2-D", 2), ("several tensors", 3)])
def test_a_chunk_has_about_so_many_rows(name, n_chunks):
    network, layers, x = CHUNKED[name]()
    model = decompose(network, dict.fromkeys(layers, 3))
    chunks = model.chunks(x, 10 if n_chunks == 3 else 3)
    assert len(chunks) == n_chunks


def test_inputs_that_depend_on_one_another_are_computed_at_once():
    method, x = spd_of(randomize(Couples()), ["layer", "last"]), draw(6, 3)
    assert method.model.chunks(x, 2) == (x,)
    assert isinstance(method.model, ComponentModel)


def test_rows_that_a_network_flattens_are_computed_at_once():
    method, x = spd_of(randomize(FlatInside()), FlatInside.layers), draw(6, 5, 3)
    assert len(method.model.chunks(x, 10)) == 1
    assert method.importances(x)["last"].shape == (30, 3)


def test_an_embedding_is_its_one_hot_layer():
    """SPD of tokens equals SPD of a linear layer that reads one-hot vectors."""
    network = randomize(nn.Sequential(nn.Embedding(7, 4), nn.Tanh(), nn.Linear(4, 2)))
    linear = randomize(sequential(7, 4, 2))
    linear[0].bias.data.zero_()
    linear[0].weight.data.copy_(network[0].weight.data.T)
    linear[2].load_state_dict(network[2].state_dict())
    x = tokens(6, 5)
    mine = losses_and_gradients(spd_of(network, ["0", "2"]), x)
    truth = losses_and_gradients(spd_of(linear, ["0", "2"]), F.one_hot(x, 7).double())
    torch.testing.assert_close(mine, truth, **SHARP)
