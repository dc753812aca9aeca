"""The masked forward pass against explicitly summed weights, and what `decompose` refuses."""

import pytest
import torch
from networks import MLP, SHARP, Residual, draw, randomize, residual_mlp, textbook_of
from torch import Generator, nn

from benchmarks import pair, textbook
from pd_helpers.core.components import Components, TransposedLinear, decompose
from pd_helpers.core.shortcuts import active_pairs as pairs
from pd_helpers.targets.tms import TMS

NETWORKS = {
    "tied": (lambda: TMS(n_features=4, n_hidden=2), ["embed"]),
    "tied, with identity": (lambda: TMS(n_features=4, n_hidden=2, identity=True), ["embed", "identity"]),
    "tied, identity kept": (lambda: TMS(n_features=4, n_hidden=2, identity=True), ["embed"]),
    "nested, with biases": (lambda: Residual(d=4), list(Residual.layers)),
    "one layer of it": (lambda: Residual(d=4), ["blocks.1.up"]),
    "residual MLP": (lambda: residual_mlp(bias=True, tied=False), residual_mlp().layers),
    "half of a residual MLP": (residual_mlp, ["mlps.0.W_out", "mlps.1.W_in"]),
}


def make(network, rank, seed=0):
    """A decomposed network in float64, different C for every layer, with random masks for every use."""
    build, layers = NETWORKS[network]
    target = randomize(build(), seed)
    model = decompose(target, {path: 3 + i for i, path in enumerate(layers)}, rank=rank).double()
    for i, factor in enumerate(model.factors):
        factor.data.copy_(draw(*factor.shape, seed=30 + i))
    x = draw(5, 4, seed=seed + 1)
    C = {path: model.layers[use.layer].C for path, use in model.uses.items()}
    return model, x, {path: draw(5, n, seed=60 + i).abs() for i, (path, n) in enumerate(C.items())}


def by_explicit_sums(model, x, masks):
    """Every row with weight matrices of its own, Σ_c m_c P_c; uses without masks keep the target's."""
    truth = textbook_of(model)
    P, W = truth.at_uses(truth.P), truth.at_uses(truth.W)

    def act(use, a):
        if use not in masks:
            return a @ W[use].T
        of_each_row = torch.einsum("bc,coi->boi", masks[use], P[use])
        return torch.einsum("boi,bi->bo", of_each_row, a)

    return textbook.forward(truth, act, x).output


@pytest.mark.parametrize("network", ["tied, with identity", "nested, with biases", "residual MLP"])
def test_the_textbooks_masked_pass_equals_explicitly_summed_weights(network):
    model, x, masks = make(network, rank=2)
    for some in (masks, {use: masks[use] for use in list(masks)[1:]}):
        output = textbook.masked(textbook_of(model), x, some).output
        torch.testing.assert_close(output, by_explicit_sums(model, x, some), **SHARP)


@pytest.mark.parametrize("rank", [1, 2, None])
@pytest.mark.parametrize("network", NETWORKS)
class TestMaskedForward:
    def test_equals_explicitly_summed_weights(self, network, rank):
        model, x, masks = make(network, rank)
        torch.testing.assert_close(model(x, masks).output, by_explicit_sums(model, x, masks), **SHARP)

    def test_uses_without_masks_keep_the_targets_weights(self, network, rank):
        model, x, masks = make(network, rank)
        for path, mask in masks.items():
            truth = by_explicit_sums(model, x, {path: mask})
            torch.testing.assert_close(model(x, {path: mask}).output, truth, **SHARP)
        torch.testing.assert_close(model(x, {}).output, model.target(x), **SHARP)

    def test_no_masks_means_all_components(self, network, rank):
        model, x, masks = make(network, rank)
        ones = {path: torch.ones_like(mask) for path, mask in masks.items()}
        torch.testing.assert_close(model(x).output, by_explicit_sums(model, x, ones), **SHARP)

    def test_gradients_equal_those_through_explicit_sums(self, network, rank):
        model, x, masks = make(network, rank)
        masks = {path: mask.requires_grad_() for path, mask in masks.items()}
        leaves = [*model.factors, *masks.values()]
        grads = torch.autograd.grad(model(x, masks).output.square().sum(), leaves)
        truths = torch.autograd.grad(by_explicit_sums(model, x, masks).square().sum(), leaves)
        for grad, truth in zip(grads, truths, strict=True):
            torch.testing.assert_close(grad, truth, **SHARP)


def test_one_mask_serves_every_use():
    model, x, _ = make("tied", rank=2)
    mask = draw(5, 3).abs()
    truth = by_explicit_sums(model, x, {"embed": mask, "unembed": mask})
    torch.testing.assert_close(model(x, mask).output, truth, **SHARP)


def test_target_weights_as_components_reproduce_the_target():
    model, x, _ = make("nested, with biases", rank=None)
    with torch.no_grad():
        for path, layer in model.layers.items():
            layer.U.zero_()
            layer.V.zero_()
            U, S, Vh = torch.linalg.svd(model.targets[path], full_matrices=False)
            layer.U[0, :, : len(S)], layer.V[0, : len(S)] = U * S, Vh
    torch.testing.assert_close(model(x).output, model.target(x), **SHARP)


@pytest.mark.parametrize("network", NETWORKS)
def test_inputs_are_the_activations_entering_each_use(network):
    model, x, _ = make(network, rank=1)
    seen = {}
    for path in model.uses:
        module = model.target.get_submodule(path)
        module.register_forward_hook(lambda _, args, __, path=path: seen.update({path: args[0]}))
    model.target(x)
    forward = model.target_forward(x)
    torch.testing.assert_close(forward.inputs, seen, **SHARP)
    torch.testing.assert_close(forward.output, model.target(x), **SHARP)
    in_textbook = textbook.target(textbook_of(model), x)
    torch.testing.assert_close(in_textbook.output, model.target(x), **SHARP)
    torch.testing.assert_close({use: in_textbook.inputs[use] for use in seen}, seen, **SHARP)
    assert not forward.output.requires_grad


def test_sums_and_P_are_products_of_the_factors():
    model, *_ = make("tied", rank=3)
    layer = model.layers["embed"]
    P = torch.stack([layer.U[c] @ layer.V[c] for c in range(3)])
    torch.testing.assert_close(layer.P, P, **SHARP)
    torch.testing.assert_close(model.sums["embed"], P[0] + P[1] + P[2], **SHARP)


@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_stays_on_the_modules(network):
    model, x, masks = make(network, rank=1)
    before = [set(vars(module)) for module in model.target.modules()]
    output = model.target(x)
    model(x, masks)
    model.target_forward(x)
    assert [set(vars(module)) for module in model.target.modules()] == before
    assert torch.equal(model.target(x), output)


@pytest.mark.usefixtures("as_a_user")
def test_nothing_stays_on_the_modules_after_an_error():
    model, x, _ = make("nested, with biases", rank=1)
    before = [set(vars(module)) for module in model.target.modules()]
    with pytest.raises(ValueError, match="a mask must have shape"):
        model(x, {"blocks.1.up": torch.ones(2, 3, dtype=torch.float64)})  # two rows of masks for five of data
    assert [set(vars(module)) for module in model.target.modules()] == before


def test_uses_of_a_tied_matrix():
    model, *_ = make("tied, with identity", rank=1)
    assert dict(model.uses) == {"embed": ("embed", False), "identity": ("identity", False), "unembed": ("embed", True)}


@pytest.mark.parametrize(("rank", "R"), [(1, 1), (2, 2), (None, 3)])
def test_factors_have_the_rank_asked_for(rank, R):
    layer = decompose(TMS(n_features=5, n_hidden=2), {"embed": 7}, rank=rank).layers["embed"]
    assert layer.U.shape == (7, 2, R)
    assert layer.V.shape == (7, R, 5)


def test_initial_factors_come_from_the_generator():
    def factors(seed):
        return decompose(MLP(), {"fc1": 200, "fc2": 200}, rank=2, generator=Generator().manual_seed(seed)).factors

    first, again, other = factors(0), factors(0), factors(1)
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))
    U, V = (factor.detach() for factor in first[:2])
    assert U.std() == pytest.approx(200**-0.5, rel=0.15)
    assert V.std() == pytest.approx(4**-0.5, rel=0.15)  # d_out is 4


def test_the_target_is_frozen_and_the_factors_are_not():
    model = decompose(MLP(), {"fc1": 2})
    assert not any(p.requires_grad for p in model.target.parameters())
    assert all(p.requires_grad for p in model.factors)


def shares_weight_with_a_bag():
    model = nn.ModuleDict({"table": nn.EmbeddingBag(4, 3), "head": nn.Linear(3, 4)})
    model["table"].weight = model["head"].weight
    return model


def with_weight(value):
    model = MLP()
    with torch.no_grad():
        model.fc2.weight[0, 1] = value
    return model


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize(
    ("build", "C", "rank", "error", "message"),
    [
        (Residual, {"blocks.0": 3}, 1, TypeError, "layer 'blocks.0' is a Block, not a layer.*; .*blocks.0.up"),
        (MLP, {"fc3": 3}, 1, ValueError, "no layer 'fc3'; .*fc1"),
        (MLP, {}, 1, ValueError, "names no layer; .*fc1"),
        (MLP, {"fc1": 0}, 1, ValueError, r"C\['fc1'\] must be at least 1, but is 0; 20 works"),
        (MLP, {"fc1": 3, "fc2": -2}, 1, ValueError, r"C\['fc2'\] must be at least 1, but is -2"),
        (MLP, {"fc1": 2.5}, 1, TypeError, r"C\['fc1'\] must be a whole number, but is 2.5"),
        (MLP, {"fc1": True}, 1, TypeError, r"C\['fc1'\] must be a whole number, but is True"),
        (MLP, {"fc1": 3}, 0, ValueError, "rank must be at least 1, but is 0"),
        (lambda: with_weight(torch.nan), {"fc2": 3}, 1, ValueError, "1 of the 8 weights of layer 'fc2' are not finite"),
        (lambda: with_weight(torch.inf), {"fc2": 3}, 1, ValueError, "1 of the 8 weights of layer 'fc2' are not finite"),
        (shares_weight_with_a_bag, {"head": 3}, 1, TypeError, "'head' shares its weight with 'table', an EmbeddingBag"),
    ],
)
def test_bad_input_is_refused_by_name(build, C, rank, error, message):
    with pytest.raises(error, match=message):
        decompose(build(), C, rank=rank)


class CallsTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(self.layer(x))


def test_a_layer_called_twice_is_refused():
    model = decompose(CallsTwice(), {"layer": 2})
    with pytest.raises(ValueError, match="calls 'layer' twice"):
        model.target_forward(torch.ones(1, 2))
    assert "forward" not in vars(model.target.layer)


def test_a_layer_never_called_is_refused():
    model = decompose(CallsTwice(), {"idle": 2})
    with pytest.raises(ValueError, match="never called 'idle'"):
        model.target_forward(torch.ones(1, 2))


def test_masks_for_an_unknown_use_are_refused():
    model, x, masks = make("tied", rank=1)
    with pytest.raises(ValueError, match="masks names 'identity', which is not decomposed; embed, unembed are"):
        model(x, {**masks, "identity": masks["embed"]})


def test_parameters_are_counted_as_the_layers_say():
    assert decompose(MLP(), {"fc1": 2, "fc2": 2}).n_parameters == {"fc1": 12, "fc2": 8}
    narrow, _ = residual_mlp(d_resid=40, d_mlp=3).narrow()
    model = decompose(narrow, {"mlps.0.W_in": 2, "mlps.1.W_out": 2})
    assert model.n_parameters == {"mlps.0.W_in": 120, "mlps.1.W_out": 120}


def test_hidden_names_the_uses_after_a_relu_or_all():
    def hidden(target, *layers):
        return decompose(target, dict.fromkeys(layers, 2)).hidden

    net = residual_mlp()
    assert hidden(net, *net.layers) == ["mlps.0.W_out", "mlps.1.W_out"]
    assert hidden(net, "mlps.0.W_in", "mlps.1.W_out") == ["mlps.1.W_out"]
    assert hidden(MLP(), "fc1", "fc2") == ["fc1", "fc2"]
    assert hidden(TMS(n_features=3, n_hidden=2), "embed") == ["embed", "unembed"]


X = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])


class TestMergeEmptyRows:
    def test_one_empty_row_stands_for_all(self):
        rows, counts, n_inputs = decompose(TMS(n_features=2, n_hidden=1), {"embed": 2}).merge_empty_rows(X)
        assert rows.tolist() == [[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]
        assert counts.tolist() == [1.0, 1.0, 2.0]
        assert n_inputs == 4

    @pytest.mark.parametrize("x", [X[[0, 0]], X[[1, 3]]], ids=["all empty", "none empty"])
    def test_counts_add_up_to_the_batch(self, x):
        rows, counts, _ = decompose(TMS(n_features=2, n_hidden=1), {"embed": 2}).merge_empty_rows(x)
        assert len(rows) == len(counts)
        assert counts.sum() == 2
        assert counts[rows.any(dim=1)].tolist() == [1.0] * int(x.any(dim=1).sum())

    def test_is_off_where_a_bias_reaches_a_decomposed_layer(self):
        network = MLP(d_in=2)
        nn.init.ones_(network.fc1.bias)
        model = decompose(network, {"fc1": 2, "fc2": 2})
        rows, counts, _ = model.merge_empty_rows(X)
        assert torch.equal(rows, X)
        assert counts.tolist() == [1.0] * 4

    def test_is_on_where_only_later_layers_have_a_bias_before_them(self):
        assert len(decompose(MLP(d_in=2), {"fc1": 2}).merge_empty_rows(X).rows) == 3


def test_a_tied_autoencoder_of_your_own():
    class Autoencoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.ModuleDict({"encode": nn.Linear(3, 2)})
            self.decode = TransposedLinear(self.inner["encode"])

        def forward(self, x):
            return self.decode(torch.tanh(self.inner["encode"](x)))

    model = randomize(decompose(randomize(Autoencoder()), {"inner.encode": 4}, rank=2), seed=3)
    x, masks = draw(5, 3), {"inner.encode": draw(5, 4, seed=1), "decode": draw(5, 4, seed=2)}

    def f(linear, x):
        hidden = torch.tanh(linear("inner.encode", x) + model.target.inner["encode"].bias)
        return linear("decode", hidden) + model.target.decode.bias

    uses = {"inner.encode": ("inner.encode", False), "decode": ("inner.encode", True)}
    truth = pair.in_textbook(textbook.Model(f, uses, model.targets), model)
    torch.testing.assert_close(model(x, masks).output, textbook.masked(truth, x, masks).output, **SHARP)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("network", ["tied", "tied, with identity", "nested, with biases"])
def test_a_boolean_mask_computes_only_what_is_on_with_the_same_result(network, rank, monkeypatch):
    model, x, _ = make(network, rank)
    C = min(layer.C for layer in model.layers.values())
    for layer in model.layers.values():  # one mask for all uses wants one C
        layer.C, layer.U, layer.V = C, nn.Parameter(layer.U[:C]), nn.Parameter(layer.V[:C])
    on = draw(5, C, seed=7) > 0.5
    on[2] = False  # a row without any component
    on[:, 1] = False  # a component that is never on
    outcomes = []
    for small in (0, 10**9):
        monkeypatch.setattr(pairs, "SMALL", small)
        output = model(x, on).output
        outcomes.append((output, torch.autograd.grad(output.square().sum(), model.factors)))
    torch.testing.assert_close(*outcomes, **SHARP)


@pytest.mark.parametrize("network", NETWORKS)
def test_known_inner_activations_change_nothing(network):
    model, x, masks = make(network, rank=1)
    inner = model.inner(model.target_forward(x).inputs)
    for some in ({}, masks, *({use: mask} for use, mask in masks.items())):
        plain = model(x, some).output
        torch.testing.assert_close(model(x, some, inner).output, plain, **SHARP)
        if some:
            truth = torch.autograd.grad(plain.square().sum(), model.factors, allow_unused=True)
            shared = torch.autograd.grad(
                model(x, some, inner).output.square().sum(), model.factors, retain_graph=True, allow_unused=True
            )
            torch.testing.assert_close(shared, truth, **SHARP)


def test_the_standard_deviation_of_the_initial_factors_can_be_set():
    model = decompose(TMS(n_features=40, n_hidden=10), {"embed": 50}, std=0.01)
    for factor in model.factors:
        assert factor.std().item() == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("shape", [(3, 4, 6), (3, 6, 4), (1, 1, 5)])
def test_assigned_matrices_are_the_components(shape):
    C, d_out, d_in = shape
    P = draw(*shape, seed=3)
    layer = Components(C=C, d_out=d_out, d_in=d_in, rank=5).double().assign_(P)
    torch.testing.assert_close(layer.P, P)
    torch.testing.assert_close(layer.weight, P.sum(dim=0))
    torch.testing.assert_close(layer.U.square().sum(dim=1), layer.V.square().sum(dim=2))  # neither is the larger


def test_matrices_of_too_high_a_rank_are_refused():
    layer = Components(C=2, d_out=3, d_in=3, rank=2)
    with pytest.raises(ValueError, match="P must have rank at most 2, .* but has rank 3"):
        layer.assign_(torch.eye(3).expand(2, 3, 3))
