"""Eq. 8 against autograd: the Jacobian, one backward pass per output, and brute-force top-k."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import SHARP, Residual, draw, randomize, textbook_of
from torch.func import functional_call, jacrev

from benchmarks import textbook
from pd_helpers.attributions import attributions, batch_top_k, tangents
from pd_helpers.targets import TMS

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
