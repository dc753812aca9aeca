"""What is active where: importances and tables aligned with inputs, positions and tokens, for batches of every kind."""

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import MLP
from torch import nn

import pd_helpers as pdh
from pd_helpers.analysis import activity

pytestmark = pytest.mark.usefixtures("one_thread", "quick_evaluation", "as_a_user")

SPD = pdh.SPDConfig(C=4, d_gate=3, steps=8, batch_size=16)
APD = pdh.APDConfig(C=4, rank=2, steps=4, batch_size=16, top_k=1.5)
ALL = pytest.mark.parametrize("kind", ["vectors", "sequences", "patches", "tokens"])
BOTH = pytest.mark.parametrize("config", [SPD, APD], ids=["spd", "apd"])


class Language(nn.Module):
    """Embedded tokens and positions, a layer, and the embedding once more, transposed."""

    def __init__(self):
        super().__init__()
        self.embed, self.places, self.fc = nn.Embedding(9, 5), nn.Embedding(6, 5), nn.Linear(5, 5)
        self.unembed = nn.Linear(5, 9, bias=False)
        self.unembed.weight = self.embed.weight

    def forward(self, input_ids):
        h = self.embed(input_ids) + self.places(torch.arange(input_ids.shape[1], device=input_ids.device)[None])
        return self.unembed(h + torch.relu(self.fc(h)))


def convolution():
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))


NETWORKS = {
    "vectors": (lambda: MLP(6, 5, 4), lambda n: torch.rand(n, 6), ["fc1", "fc2"]),
    "sequences": (lambda: MLP(6, 5, 4), lambda n: torch.rand(n, 3, 6), ["fc1", "fc2"]),
    "patches": (convolution, lambda n: torch.rand(n, 1, 4, 4), ["0", "3"]),
    "tokens": (Language, lambda n: torch.randint(9, (n, 6)), ["embed", "places", "fc"]),
}


@cache
def decomposed(kind, config):
    torch.manual_seed(0)
    network, inputs, layers = NETWORKS[kind]
    return pdh.fit(network(), config, inputs(40), layers, show_progress=False, device="cpu")


def batch_of(kind, n=7):
    torch.manual_seed(1)
    return NETWORKS[kind][1](n)


def entering(run, x):
    """Use → what enters it, seen by hooks on the network itself."""
    seen, hooks = {}, []
    for use in run.components.uses:
        module = run.target.get_submodule(use)
        hooks.append(module.register_forward_pre_hook(lambda _, a, use=use: seen.update({use: a[0]})))
    with torch.no_grad():
        run.target(x)
    for hook in hooks:
        hook.remove()
    return seen


@torch.no_grad()
def written(run, x, use, c):
    """What one component writes by itself, (*rows, d), computed by torch's own functions."""
    h, (layer, transposed) = entering(run, x)[use], run.components.uses[use]
    P, module = run.components.layers[layer].P[c], run.target.get_submodule(use)
    if isinstance(module, nn.Conv2d):
        return F.conv2d(h, P.view(module.weight.shape), padding=1).permute(0, 2, 3, 1)
    if isinstance(module, nn.Embedding):
        return F.one_hot(h, module.num_embeddings).to(P) @ P.T
    return h @ (P if transposed else P.T)


def looped(run, x, threshold):
    """(input, position, layer, component) → importance, found one by one."""
    lines = {}
    for use, g in run.importances(x).items():
        for index in np.ndindex(*g.shape):
            inputs = [index[0]] if len(g) == len(x) else range(len(x))
            for i in inputs if g[index] > threshold else ():
                lines[(i, index[1:-1], use, index[-1])] = g[index].item()
    return lines


def place_of(position):
    return () if position is None or position != position else position if isinstance(position, tuple) else (position,)


def keys(table):
    positions = table["position"] if "position" in table else [None] * len(table)
    return list(zip(table.input, map(place_of, positions), table.layer, table.component, strict=True))


# Importances


@ALL
def test_importances_belong_to_inputs_and_positions(kind):
    """Γ of what the components read off what really enters the layer there."""
    run, x = decomposed(kind, SPD), batch_of(kind)
    importances, inputs = run.importances(x), entering(run, x)
    for use, (layer, transposed) in run.components.uses.items():
        V = run.components.layers[layer].U.mT if transposed else run.components.layers[layer].V
        module, h, V = run.target.get_submodule(use), inputs[use], V.squeeze(1)
        if isinstance(module, nn.Conv2d):
            h = F.unfold(h, 3, padding=1).mT.unflatten(1, (4, 4))
        if isinstance(module, nn.Embedding):
            h = F.one_hot(h, module.num_embeddings).to(V)
        gates = run.importance.mlps[use]((h @ V.T).flatten(0, -2)).clamp(0, 1)
        assert importances[use].shape == (*h.shape[:-1], 4)
        torch.testing.assert_close(importances[use].flatten(0, -2), gates.detach())


@ALL
def test_importances_of_apd_hold_at_all_places_of_an_input(kind):
    run, x = decomposed(kind, APD), batch_of(kind)
    attributions = run.method.attributions(x)
    best = attributions.flatten().argsort(descending=True)[: round(1.5 * len(x))]
    expected = torch.zeros(attributions.numel()).index_fill(0, best, 1.0).view_as(attributions)
    for use, g in run.importances(x).items():
        assert (len(g), *g.shape[1:-1]) == (len(x), *run.components.rows(x)[use][1:])
        for place in np.ndindex(*g.shape[1:-1]):
            assert torch.equal(g[(slice(None), *place)], expected)


class Sum(MLP):
    def forward(self, x, y):
        return super().forward(x + y)


def sums():
    torch.manual_seed(2)
    return torch.rand(20, 6), torch.rand(20, 6)


@BOTH
def test_importances_of_tuples_and_dicts(config):
    x, y = sums()
    run = pdh.fit(Sum(6, 5, 4), config, (x, y), show_progress=False, device="cpu")
    by_order, by_name = run.importances((x, y)), run.importances({"y": y, "x": x})
    order = torch.randperm(20)
    moved = run.importances((x[order], y[order]))
    for use, g in by_order.items():
        assert torch.equal(g, by_name[use])
        torch.testing.assert_close(g[order], moved[use])
    if config is SPD:
        read = (x + y) @ run.components.layers["fc1"].V[:, 0].T
        torch.testing.assert_close(by_order["fc1"], run.importance.mlps["fc1"](read).clamp(0, 1).detach())


# The table


@ALL
@BOTH
def test_the_table_has_what_is_above_the_threshold(kind, config):
    run, x = decomposed(kind, config), batch_of(kind)
    table, expected = run.active(x, 0.2), looped(run, x, 0.2)
    assert dict(zip(keys(table), table.importance, strict=True)) == pytest.approx(expected)
    assert len(table) == len(expected) > 0
    uses = list(run.components.uses)
    order = [
        (i, place, uses.index(use), -g) for (i, place, use, _), g in zip(keys(table), table.importance, strict=True)
    ]
    assert order == sorted(order)
    assert list(table.layer.cat.categories) == uses


@ALL
@BOTH
def test_activations_are_what_components_write(kind, config):
    run, x = decomposed(kind, config), batch_of(kind)
    sizes = {(use, c): written(run, x, use, c).norm(dim=-1) for use in run.components.uses for c in range(4)}
    table = run.active(x, 0.0)
    for (i, place, use, c), activation in zip(keys(table), table.activation, strict=True):
        size = sizes[use, c]
        expected = size[(i if len(size) == len(x) else 0, *place)].item()
        assert abs(activation) == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert config is SPD or activation >= 0


def test_the_sign_of_an_activation_is_that_of_what_is_read():
    run, x = decomposed("vectors", SPD), batch_of("vectors")
    read = {use: (h @ run.components.layers[use].V[:, 0].T).detach() for use, h in entering(run, x).items()}
    table = run.active(x, 0.0)
    assert {-1.0, 1.0} == set(np.sign(table.activation))
    for line in table.itertuples():
        assert line.activation * read[line.layer][line.input, line.component] > 0


def test_a_matrix_that_is_used_transposed():
    run = pdh.shipped("spd/tms_5-2")
    x = torch.eye(5)
    table = run.active(x)
    assert set(table.layer) == {"embed", "unembed"}
    for line in table.itertuples():
        expected = written(run, x, line.layer, line.component)[line.input].norm().item()
        assert abs(line.activation) == pytest.approx(expected, rel=1e-4)


def test_positions():
    columns = {
        kind: run_table.columns for kind in NETWORKS for run_table in [decomposed(kind, SPD).active(batch_of(kind))]
    }
    assert "position" not in columns["vectors"]
    assert decomposed("sequences", SPD).active(batch_of("sequences")).position.dtype == "int64"
    table = decomposed("patches", SPD).active(batch_of("patches"), 0.0)
    places = table.position[table.layer == "0"]
    assert set(places) == {(y, x) for y in range(4) for x in range(4)}
    assert table.position[table.layer == "3"].isna().all()
    assert (table[table.position.isin([(1, 2)])].position == places[places.isin([(1, 2)])]).all()


def test_positions_where_some_layers_have_none():
    network = nn.Sequential(nn.Linear(6, 5), nn.Flatten(), nn.Linear(15, 4))
    run = pdh.fit(network, SPD, torch.rand(20, 3, 6), show_progress=False, device="cpu")
    table = run.active(torch.rand(5, 3, 6), 0.0)
    assert str(table.position.dtype) == "Int64"
    assert set(table.position[table.layer == "0"]) == {0, 1, 2}
    assert table.position[table.layer == "2"].isna().all()


def test_tokens():
    run, x = decomposed("tokens", SPD), batch_of("tokens")
    table = run.active(x, 0.0)
    of_tokens = table.layer != "places"
    expected = x.numpy()[table.input, table.position]
    assert (table.token[of_tokens] == expected[of_tokens]).all()
    assert table.token[~of_tokens].isna().all()
    assert not of_tokens.all()
    words = [f"word {i}" for i in range(9)]
    for tokens in (words, dict(enumerate(words)), lambda i: words[i]):
        decoded = run.active({"input_ids": x}, 0.0, tokens=tokens)
        assert list(decoded.token[of_tokens]) == [f"word {i}" for i in expected[of_tokens]]
    assert "token" not in decomposed("sequences", SPD).active(batch_of("sequences"))


@pytest.mark.parametrize("kind", ["vectors", "sequences", "patches"])
@BOTH
def test_pieces_of_a_batch_give_the_same_table(kind, config, monkeypatch):
    run, x = decomposed(kind, config), batch_of(kind)
    whole = run.active(x, 0.2)
    monkeypatch.setattr(activity, "CHUNK", 2 * run.components.rows_per_input)
    n_parts = sum(1 for _ in activity.parts(run, x))
    assert n_parts == 4
    in_pieces = run.active(x, 0.2)
    assert keys(in_pieces) == keys(whole)
    np.testing.assert_allclose(in_pieces.activation, whole.activation, rtol=1e-5)


def test_rows_that_are_not_the_inputs_have_no_number_of_an_input():
    class Flat(MLP):
        def forward(self, x):
            return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    run = pdh.fit(Flat(6, 5, 4), SPD, torch.rand(20, 3, 6), show_progress=False, device="cpu")
    x = torch.rand(4, 3, 6)
    table, g = run.active(x, 0.0), run.importances(x)["fc1"]
    assert set(table.input) == {-1}
    for line in table[table.layer == "fc1"].itertuples():
        assert line.importance == g[line.position, line.component]
    assert set(run.active(x[:1]).input) == {0}
    assert run.strongest("fc1", 0, x, n=2).inputs == [None, None]


# The strongest rows


@ALL
@BOTH
def test_strongest_rows_are_those_that_argsort_gives(kind, config):
    run, x = decomposed(kind, config), batch_of(kind)
    for use in run.components.uses:
        g, c = run.importances(x)[use], 2
        table, inputs = run.strongest(use, c, x, n=5)
        g = g.expand(len(x), *g.shape[1:])[..., c]
        size = written(run, x, use, c).norm(dim=-1).expand(g.shape)
        ranks = sorted(zip(g.flatten().tolist(), size.flatten().tolist(), strict=True), reverse=True)[: len(table)]
        found = list(zip(table.importance, table.activation.abs(), strict=True))
        np.testing.assert_allclose(found, ranks, rtol=1e-4, atol=1e-6)
        assert len(table) == min(5, g.numel())
        for line, one in zip(table.itertuples(), inputs, strict=True):
            assert torch.equal(one, x[line.input])
            at = (line.input, *place_of(getattr(line, "position", None)))
            assert line.importance == pytest.approx(g[at].item())
            assert abs(line.activation) == pytest.approx(size[at].item(), rel=1e-4, abs=1e-6)


def test_strongest_rows_of_fresh_inputs():
    run = decomposed("tokens", SPD)
    first, again = run.strongest("fc", 1), run.strongest("fc", 1)
    assert first.table.equals(again.table)
    assert len(first.table) == 10
    assert len(set(first.table.input)) > 1
    for line, one in zip(first.table.itertuples(), first.inputs, strict=True):
        g = run.importances(one[None])["fc"][0, line.position, 1]
        assert line.importance == pytest.approx(g.item(), rel=1e-4)
        assert line.token == one[line.position]
    assert repr(first) == repr(first.table)
    assert first._repr_html_() == first.table._repr_html_()


def test_strongest_inputs_of_tuples_and_dicts():
    x, y = sums()
    run = pdh.fit(Sum(6, 5, 4), SPD, (x, y), show_progress=False, device="cpu")
    table, inputs = run.strongest("fc1", 0, (x, y))
    _, by_name = run.strongest("fc1", 0, {"x": x, "y": y})
    for i, (a, b), named in zip(table.input, inputs, by_name, strict=True):
        assert torch.equal(a, x[i])
        assert torch.equal(b, y[i])
        assert torch.equal(named["x"], x[i])
        assert set(named) == {"x", "y"}


# Bad calls


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda run, x: run.active(x, "much"), TypeError, "threshold must be a number, but is 'much'; 0.1 works"),
        (lambda run, x: run.active(x, float("nan")), ValueError, "threshold must be a number from 0 to 1, but is nan"),
        (lambda run, x: run.active("x"), TypeError, "batch must be a tensor with one input per row, but is a str"),
        (lambda run, x: run.active(x[:0]), ValueError, r"batch must have one input per row, but has shape \(0, 6\)"),
        (lambda run, x: run.active(x, tokens=3), TypeError, "tokens must be a function, a list or a mapping"),
        (lambda run, x: run.active(x, tokens=["a"]), ValueError, "batch holds no tokens"),
        (lambda run, x: run.strongest("fc3", 0, x), ValueError, "layer names 'fc3', .* 'fc1', 'fc2' work"),
        (lambda run, x: run.strongest("fc1", 4, x), ValueError, "component must be .* from 0 to 3, but is 4; 3 works"),
        (lambda run, x: run.strongest("fc1", -1, x), ValueError, "component must be a component from 0 to 3"),
        (lambda run, x: run.strongest("fc1", 1.0, x), TypeError, "component must be the number of a component"),
        (lambda run, x: run.strongest("fc1", 0, x, n=0), ValueError, "n must be at least 1, but is 0; 10 works"),
        (lambda run, x: run.strongest("fc1", 0, x, n=2.5), TypeError, "n must be a whole number, but is 2.5; 10 works"),
    ],
)
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call(decomposed("vectors", SPD), batch_of("vectors"))


def test_a_token_without_a_text():
    with pytest.raises(ValueError, match=r"tokens must have a text for token \d, but has none"):
        decomposed("tokens", SPD).active(batch_of("tokens"), tokens=["a"])


def test_a_run_without_data(tmp_path):
    run = decomposed("vectors", SPD)
    loaded = pdh.load(run.save(tmp_path / "run"), target=MLP(6, 5, 4))
    with pytest.raises(ValueError, match=r"batch must be given, .* pdh.load\(folder, data=...\), works"):
        loaded.strongest("fc1", 0)
    assert len(loaded.strongest("fc1", 0, batch_of("vectors"))) == 2
