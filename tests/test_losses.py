"""The losses by hand on 2x2 cases, against the textbook, and against true singular values."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import SHARP, Residual, draw, randomize, textbook_of

from benchmarks import textbook
from pd_helpers.core import losses
from pd_helpers.core.apd import schatten_norms
from pd_helpers.core.components import decompose
from pd_helpers.targets.tms import TMS, TMSConfig


def test_faithfulness_by_hand():
    W, S = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    assert losses.faithfulness({"a": W}, {"a": S}) == (4 + 9) / 4
    # A second layer of one parameter: the mean is over parameters, not over layers.
    two = losses.faithfulness({"a": W, "b": torch.tensor([[2.0]])}, {"a": S, "b": torch.tensor([[0.0]])})
    torch.testing.assert_close(two, torch.tensor((4 + 9 + 4) / 5))


def test_faithfulness_of_matrices_that_stand_for_larger_ones():
    W, S = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    assert losses.faithfulness({"a": W}, {"a": S}, n_parameters={"a": 20}) == (4 + 9) / 20


def test_faithfulness_counts_a_tied_matrix_once_for_each_use():
    W, S = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [3.0, 1.0]])
    identity, other = torch.eye(2)[:1], torch.tensor([[3.0, 0.0]])
    value = losses.faithfulness({"W": W, "I": identity}, {"W": S, "I": other}, {"W": 2, "I": 1})
    torch.testing.assert_close(value, torch.tensor((2 * (4 + 9) + 4) / (2 * 4 + 2)))
    model = decompose(TMSConfig(identity=True).build(), {"embed": 3, "identity": 3})
    torch.testing.assert_close(
        model.faithfulness(), losses.faithfulness(model.targets, model.sums, {"embed": 2, "identity": 1})
    )


def test_hidden_reconstruction_by_hand():
    inputs = {"a": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "b": torch.tensor([[1.0], [5.0]]), "c": torch.ones(2, 3)}
    targets = {"a": torch.tensor([[0.0, 0.0], [0.0, 3.0]]), "b": torch.tensor([[3.0], [5.0]]), "c": torch.zeros(2, 3)}
    a, b = (1 + 4) / (2 * 2), 4 / 2
    # The mean over layers, however wide each is; those not named do not count.
    assert losses.hidden_recon(inputs, targets, ["a", "b"]) == (a + b) / 2
    assert losses.hidden_recon(inputs, targets, ["a"]) == a
    assert losses.hidden_recon(inputs, targets, ["a", "b"], 8) == (a + b) / 2 / 4  # six rows without error


def test_reconstruction_by_hand():
    output, target = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 0.0], [0.0, 3.0]])
    assert losses.recon(output, target) == (1 + 4) / (2 * 2)
    assert losses.recon(output, target, 4) == (1 + 4) / (4 * 2)  # two more rows without error


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3), (4, 3, 2), (4, 2, 3, 5)])
def test_reconstruction_is_a_mean_over_inputs_and_all_of_their_output(shape):
    output, target = draw(*shape, seed=1), draw(*shape, seed=2)
    truth = (output - target).square().mean()
    torch.testing.assert_close(losses.recon(output, target), truth, **SHARP)
    torch.testing.assert_close(losses.recon(output, target, 8), truth / 2, **SHARP)  # four more without error
    torch.testing.assert_close(losses.hidden_recon({"a": output}, {"a": target}, ["a"]), truth, **SHARP)


def test_divergence_is_a_mean_over_positions():
    output, target = draw(4, 3, 5, seed=1), draw(4, 3, 5, seed=2)
    flat = losses.kl_divergence(output.flatten(0, 1), target.flatten(0, 1))
    torch.testing.assert_close(losses.kl_divergence(output, target), flat, **SHARP)
    torch.testing.assert_close(losses.kl_divergence(output, target, 8), flat / 2, **SHARP)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("shape", [(4, 1), (4,), (4, 3, 1)])
def test_divergence_of_a_single_class_is_refused(shape):
    with pytest.raises(
        ValueError, match="'kl', which compares the probabilities of two classes or more, .*'mse' works"
    ):
        losses.kl_divergence(torch.zeros(shape), torch.ones(shape))


@pytest.mark.parametrize(("p", "norm"), [(1.0, 3.0 + 2.0), (2.0, 9.0 + 4.0), (0.5, math.sqrt(3) + math.sqrt(2))])
def test_schatten_by_hand(p, norm):
    U = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])  # columns of lengths 1 and 2
    V = torch.tensor([[[3.0, 0.0], [0.6, 0.8]]])  # rows of lengths 3 and 1
    torch.testing.assert_close(losses.schatten(U, V, p), torch.tensor([norm]))


def test_simplicity_by_hand():
    active = torch.tensor([[True, False], [True, True]])
    # Row 1 pays 2, row 2 pays 2 + 3; mean over 2 rows, per each of 8 parameters.
    assert losses.simplicity(active, torch.tensor([2.0, 3.0]), 8) == (2 + 5) / 2 / 8
    assert losses.simplicity(active, torch.tensor([2.0, 3.0]), 8, 4) == (2 + 5) / 4 / 8


def test_importance_minimality_by_hand():
    g = torch.tensor([[0.5, 1.0, 2.0], [0.0, 0.25, 0.0]])
    # The second row stands for three. Squares: row 1 has 0.25 + 1 + 4, row 2 has 0.0625.
    loss = losses.importance_minimality(g, 2.0, torch.tensor([1.0, 3.0]), 4)
    torch.testing.assert_close(loss, torch.tensor((5.25 + 3 * 0.0625) / 4))


def test_layerwise_is_the_mean_over_layers():
    assert losses.layerwise([torch.tensor(1.0), torch.tensor(4.0), torch.tensor(4.0)]) == 3.0


def test_faithfulness_equals_the_textbooks():
    model = randomize(decompose(randomize(Residual()), dict.fromkeys(Residual.layers, 3), rank=2), seed=1)
    truth = textbook.faithfulness(textbook_of(model))
    torch.testing.assert_close(losses.faithfulness(model.targets, model.sums), truth, **SHARP)


@pytest.mark.parametrize("identity", [False, True])
@pytest.mark.parametrize("p", [0.9, 1.0, 2.0])
def test_simplicity_counts_a_tied_weight_once_per_use(identity, p):
    target = TMS(n_features=3, n_hidden=2, identity=identity)
    model = randomize(decompose(target, dict.fromkeys(target.layers, 4)), seed=2)
    active = (draw(5, 4) > 0).double()
    norms, n_parameters = schatten_norms(model, p)
    assert n_parameters == 6 + 6 + (4 if identity else 0)
    truth = textbook.simplicity(textbook_of(model), active, p)
    torch.testing.assert_close(losses.simplicity(active, norms, n_parameters), truth, **SHARP)


@settings(deadline=None, max_examples=60)
@given(
    d_out=st.integers(1, 5), d_in=st.integers(1, 5), R=st.integers(1, 6), p=st.floats(0.3, 1.0), seed=st.integers(0, 99)
)
def test_schatten_is_an_upper_bound_for_exponents_up_to_one(d_out, d_in, R, p, seed):
    U, V = draw(2, d_out, R, seed=seed), draw(2, R, d_in, seed=seed + 100)
    singular_values = torch.linalg.svdvals(U @ V)[:, :R]
    truth = singular_values.pow(p).sum(dim=-1)
    assert (losses.schatten(U, V, p) >= truth * (1 - 1e-7) - 1e-4).all()  # svdvals of a zero is 1e-16, to the p


@settings(deadline=None, max_examples=30)
@given(d_out=st.integers(1, 5), d_in=st.integers(1, 5), p=st.floats(0.3, 2.0), seed=st.integers(0, 99))
def test_schatten_is_exact_at_singular_vectors(d_out, d_in, p, seed):
    U, S, Vh = torch.linalg.svd(draw(2, d_out, d_in, seed=seed), full_matrices=False)
    truth = S.pow(p).sum(dim=-1)
    torch.testing.assert_close(losses.schatten(U * S.unsqueeze(1), Vh, p), truth, rtol=1e-6, atol=1e-6)
    share = S.sqrt()  # however the length is shared between the factors
    torch.testing.assert_close(
        losses.schatten(U * share.unsqueeze(1), share.unsqueeze(2) * Vh, p), truth, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("p", [0.5, 0.9, 1.0])
def test_schatten_has_finite_gradients_at_zero(p):
    U, V = torch.zeros(2, 3, 2, requires_grad=True), torch.zeros(2, 2, 3, requires_grad=True)
    losses.schatten(U, V, p).sum().backward()
    assert U.grad.isfinite().all()
    assert V.grad.isfinite().all()


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0])
def test_importance_minimality_with_merged_rows_equals_all_rows(p):
    rows, counts = draw(4, 5, seed=1).abs(), torch.tensor([1, 1, 1, 5])
    truth = rows.repeat_interleave(counts, dim=0).pow(p).sum(dim=1).mean()
    merged = losses.importance_minimality(rows, p, counts.double(), 8)
    torch.testing.assert_close(merged, truth, rtol=1e-8, atol=0)


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0])
def test_importance_minimality_has_finite_gradients_at_zero(p):
    g = torch.zeros(2, 3, requires_grad=True)
    losses.importance_minimality(g, p, torch.ones(2), 2).backward()
    assert g.grad.isfinite().all()
