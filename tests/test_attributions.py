"""Eq. 8 against autograd: the Jacobian, one backward pass per output, and brute-force top-k."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import SHARP, Residual, draw, randomize, residual_mlp, textbook_of
from torch.func import functional_call, jacrev

from benchmarks import textbook
from pd_helpers.core.attributions import attributions, batch_top_k, tangents
from pd_helpers.targets.residual_mlp import ResidualMLP
from pd_helpers.targets.tms import TMS

CASES = {
    "tied": (False, ["embed"]),
    "identity kept": (True, ["embed"]),
    "identity decomposed": (True, ["embed", "identity"]),
    "only the identity": (True, ["identity"]),
}


def tms_case(identity, layers, own_weights, n_features=5, n_hidden=3, C=4):
    """A toy model (its middle matrix not the identity, so that transposing it would show) and directions."""
    model = randomize(TMS(n_features=n_features, n_hidden=n_hidden, identity=identity))
    shapes = {path: model.get_submodule(path).weight.shape for path in layers}
    directions = {path: draw(C, *shape, seed=50 + i) for i, (path, shape) in enumerate(shapes.items())}
    if own_weights:
        return model, directions, {path: model.get_submodule(path).weight.detach() for path in layers}
    return model, directions, {path: draw(*shape, seed=80 + i) for i, (path, shape) in enumerate(shapes.items())}


def by_jacobian(model, x, directions, weights):
    """Σ ∂f_o/∂θ · P_c from the full Jacobian."""

    def f(weights):
        return functional_call(model, {f"{path}.weight": W for path, W in weights.items()}, (x,))

    J = jacrev(f)(weights)  # layer → (batch, d_output, d_out, d_in)
    return sum(torch.einsum("boij,cij->cbo", J[path], directions[path]) for path in J)


def by_backward_passes(model, weights, directions, x):
    """The textbook's attributions, with some layers' weights replaced."""
    network = textbook_of(model)
    return textbook.attributions(network, {**network.W, **weights}, directions, x)


@pytest.mark.parametrize("own_weights", [True, False], ids=["own weights", "other weights"])
@pytest.mark.parametrize("case", CASES)
class TestTMS:
    def test_tangents_equal_the_jacobian(self, case, own_weights):
        model, directions, weights = tms_case(*CASES[case], own_weights)
        x = draw(6, 5, seed=1)
        truth = by_jacobian(model, x, directions, weights)
        assert truth.abs().max() > 0.1
        torch.testing.assert_close(tangents(model, x, directions, weights), truth, **SHARP)

    @pytest.mark.parametrize("rows", [6, 1000], ids=["all outputs", "outputs above zero only"])
    def test_attributions_equal_one_backward_pass_per_output(self, case, own_weights, rows):
        model, directions, weights = tms_case(*CASES[case], own_weights)
        x = draw(rows, 5, seed=2)
        truth = by_backward_passes(model, weights, directions, x)
        torch.testing.assert_close(attributions(model, x, directions, weights), truth, **SHARP)


@pytest.mark.parametrize("case", CASES)
def test_the_models_own_weights_are_the_default(case):
    model, directions, weights = tms_case(*CASES[case], own_weights=True)
    x = draw(3, 5)
    torch.testing.assert_close(
        attributions(model, x, directions), by_backward_passes(model, weights, directions, x), **SHARP
    )


@pytest.mark.parametrize("layers", [Residual.layers, Residual.layers[1:3]], ids=["all layers", "two of them"])
def test_any_network_with_dotted_paths(layers):
    model = randomize(Residual())
    weights = {path: model.get_submodule(path).weight.detach() for path in layers}
    directions = {path: draw(5, *W.shape, seed=i) for i, (path, W) in enumerate(weights.items())}
    x = draw(4, 3)
    truth = by_backward_passes(model, weights, directions, x)
    torch.testing.assert_close(attributions(model, x, directions), truth, **SHARP)
    moved = {path: W + draw(*W.shape, seed=9) for path, W in weights.items()}
    truth = by_backward_passes(model, moved, directions, x)
    torch.testing.assert_close(attributions(model, x, directions, moved), truth, **SHARP)


def factored(shapes, C=4, R=2):
    """Factors (U, V) of C random components of every layer."""
    return {
        path: (draw(C, d_out, R, seed=90 + i), draw(C, R, d_in, seed=95 + i))
        for i, (path, (d_out, d_in)) in enumerate(shapes.items())
    }


@pytest.mark.parametrize("case", CASES)
def test_factors_attribute_what_their_products_do(case):
    model, directions, weights = tms_case(*CASES[case], own_weights=False)
    factors = factored({path: P.shape[1:] for path, P in directions.items()})
    x, products = draw(6, 5), {path: U @ V for path, (U, V) in factors.items()}
    truth = by_backward_passes(model, weights, products, x)
    torch.testing.assert_close(attributions(model, x, factors, weights), truth, **SHARP)
    torch.testing.assert_close(attributions(model, x, products, weights), truth, **SHARP)


def test_factors_of_a_network_without_a_closed_form():
    model, x = randomize(Residual()), draw(4, 3)
    factors = factored({path: model.get_submodule(path).weight.shape for path in Residual.layers})
    products = {path: U @ V for path, (U, V) in factors.items()}
    truth = by_backward_passes(model, {}, products, x)
    torch.testing.assert_close(attributions(model, x, factors), truth, **SHARP)


RESIDUAL_MLPS = {
    "one layer": (1, ["mlps.0.W_in", "mlps.0.W_out"]),
    "one layer, W_in": (1, ["mlps.0.W_in"]),
    "one layer, W_out": (1, ["mlps.0.W_out"]),
    "two layers": (2, ["mlps.0.W_in", "mlps.0.W_out", "mlps.1.W_in", "mlps.1.W_out"]),
    "two layers, the second": (2, ["mlps.1.W_in", "mlps.1.W_out"]),
    "two layers, the outer two": (2, ["mlps.0.W_in", "mlps.1.W_out"]),
    "two layers, the inner two": (2, ["mlps.0.W_out", "mlps.1.W_in"]),
    "three layers": (3, [f"mlps.{i}.{name}" for i in range(3) for name in ("W_in", "W_out")]),
    "three layers, in another order": (3, ["mlps.2.W_in", "mlps.1.W_out", "mlps.0.W_in"]),
}


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("own_weights", [True, False], ids=["own weights", "other weights"])
@pytest.mark.parametrize("case", RESIDUAL_MLPS)
def test_the_closed_form_of_residual_mlps(case, own_weights, bias):
    """Against one Jacobian-vector product a component, and one backward pass an output."""
    n_layers, layers = RESIDUAL_MLPS[case]
    model, x = residual_mlp(n_layers, bias, tied=False, n_outputs=5, d_resid=7), draw(6, 4, seed=3)
    own = {path: model.get_submodule(path).weight for path in layers}
    weights = own if own_weights else {path: W + draw(*W.shape, seed=i) for i, (path, W) in enumerate(own.items())}
    factors = factored({path: W.shape for path, W in own.items()})
    products = {path: U @ V for path, (U, V) in factors.items()}
    truth = by_backward_passes(model, weights, products, x)
    assert (truth > 0.01).any(dim=0).all()
    along = tangents(model, x, products, weights)  # (C, batch, d_output)
    torch.testing.assert_close(along.square().mean(dim=2).sqrt().T, truth, **SHARP)
    given = None if own_weights else weights
    torch.testing.assert_close(attributions(model, x, factors, given), truth, **SHARP)
    torch.testing.assert_close(attributions(model, x, products, given), truth, **SHARP)


def test_residual_attribution_by_hand():
    # Two layers of one neuron, W_E = I, W_U = (0 1); x = (3, 0).
    # h = ReLU(1 · 3) = 3, s = (3, 2 · 3) = (3, 6); h' = ReLU(3 + 6) = 9, s = (12, 15).
    model = ResidualMLP(n_features=2, d_resid=2, d_mlp=1, n_layers=2, n_outputs=1)
    model.W_E.copy_(torch.eye(2))
    model.W_U.copy_(torch.tensor([[0.0, 1.0]]))
    values = ([[1.0, 0.0]], [[0.0], [2.0]], [[1.0, 1.0]], [[1.0], [1.0]])
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(torch.tensor(value))
    x = torch.tensor([[3.0, 0.0]])
    # W_in moves along (1 0): ḣ = 3, ṡ = (0, 6), ḣ' = 6, ẏ = 6 + 6. Along (0 1), which reads 0: nothing.
    assert attributions(model, x, {"mlps.0.W_in": torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])}).tolist() == [[12.0, 0.0]]
    # W_out moves along (1, 0)ᵀ: ṡ = (3, 0), ḣ' = 3, ẏ = 3. Along (0, 1)ᵀ: ṡ = (0, 3), ḣ' = 3, ẏ = 3 + 3.
    P = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])
    assert attributions(model, x, {"mlps.0.W_out": P}).tolist() == [[3.0, 6.0]]
    # Of the last layer only the second row is read: ẏ = h' = 9.
    assert attributions(model, x, {"mlps.1.W_out": P}).tolist() == [[0.0, 9.0]]


def test_neurons_that_are_off_attribute_nothing():
    model = residual_mlp(n_layers=2, bias=True, d_resid=7)
    with torch.no_grad():
        for mlp in model.mlps:
            mlp.W_in.bias.fill_(-1e3)
    factors = factored({path: model.get_submodule(path).weight.shape for path in model.layers})
    assert not attributions(model, draw(3, 4), factors).any()


def test_attribution_by_hand():
    # W = (1 2), b = 0, x = (1, 1): hidden 3, output (3, 6), both positive.
    # P = (1 0): d output = Pᵀ W x + Wᵀ P x = (3, 0) + (1, 2) = (4, 2); rms = √((16 + 4) / 2) = √10.
    # P = (0 1): (0, 3) + (1, 2) = (1, 5); rms = √13.
    model = TMS(n_features=2, n_hidden=1)
    with torch.no_grad():
        model.embed.weight.copy_(torch.tensor([[1.0, 2.0]]))
    P = {"embed": torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])}
    A = attributions(model, torch.ones(1, 2), P)
    torch.testing.assert_close(A, torch.tensor([[10.0, 13.0]]).sqrt())


def test_outputs_that_are_off_attribute_nothing():
    model, directions, _ = tms_case(False, ["embed"], own_weights=True)
    with torch.no_grad():
        model.unembed.bias.fill_(-1e3)
    assert not attributions(model, draw(3, 5), directions).any()


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 6), C=st.integers(1, 6), k=st.integers(0, 40), zeros=st.floats(0, 1), seed=st.integers(0, 99)
)
def test_batch_top_k_by_brute_force(rows, C, k, zeros, seed):
    A = draw(rows, C, seed=seed).abs() * (torch.rand(rows, C, generator=torch.Generator().manual_seed(seed)) > zeros)
    active = batch_top_k(A, k)
    pairs = sorted(((A[i, c].item(), i, c) for i in range(rows) for c in range(C)), reverse=True)[:k]
    assert {(i, c) for i, c in active.nonzero().tolist()} == {(i, c) for value, i, c in pairs if value > 0}
    assert torch.equal(active.double(), textbook.batch_top_k(A, k))
    assert active.sum() == min(k, int((A > 0).sum()))


def test_batch_top_k_counts_over_the_batch_not_over_each_row():
    A = torch.tensor([[5.0, 4.0, 3.0], [1.0, 0.5, 0.0]])
    assert batch_top_k(A, 3).tolist() == [[True, True, True], [False, False, False]]
    assert batch_top_k(A, 6).tolist() == [[True, True, True], [True, True, False]]
