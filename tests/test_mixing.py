"""Compressed computation: each formula against a case by hand, sampling, or plain code."""

import pandas
import pytest
import torch
import torch.nn.functional as F

import pd_helpers as pdh
from pd_helpers.analysis import subspaces
from pd_helpers.course.compressed_computation import ideas as mixing


def test_the_mixing_matrix_is_what_the_skip_leaves_over():
    W_E = torch.tensor([[1.0, 0.6], [0.0, 0.8]])
    assert subspaces.mixing_matrix(W_E).tolist() == [[0.0, pytest.approx(-0.6)], [pytest.approx(-0.6), 0.0]]
    x = torch.tensor([[0.5, -0.3]])
    skip = x @ (W_E.T @ W_E).T
    torch.testing.assert_close(x + F.relu(x) - skip, mixing.labels(x, subspaces.mixing_matrix(W_E)))


@pytest.mark.parametrize("kind", mixing.SIGMAS)
def test_kinds_of_mixing(kind):
    M, twice = (mixing.mixing(kind, sigma, n=60) for sigma in (0.02, 0.04))
    torch.testing.assert_close(2 * M, twice)
    off = M[~torch.eye(60, dtype=torch.bool)]
    assert off.std() == pytest.approx(0.0 if kind == "none" else 0.02, rel=0.05)
    assert torch.equal(M, M.T) == (kind != "asymmetric")
    if kind == "flipped":
        assert torch.equal(M, -mixing.mixing("embedding", 0.02, n=60))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="one of none, embedding, .*'symmetric' works"):
        mixing.mixing("random", 0.1)


@pytest.mark.parametrize("p", [0.001, 0.1, 1.0])
def test_inputs_are_those_of_the_sparse_features_on_which_something_is_on(p):
    x = mixing.inputs(p, 200_000, torch.Generator().manual_seed(0), n=8)
    on = (x != 0).double()
    assert on.any(dim=1).all()
    assert x.abs().max() <= 1
    share = 1 - (1 - p) ** 8
    assert on.mean(dim=0).numpy() == pytest.approx([p / share] * 8, abs=0.006)  # as often as the others
    both = (on.T @ on / len(on))[~torch.eye(8, dtype=torch.bool)]
    assert both.numpy() == pytest.approx([p * p / share] * 56, abs=0.006)  # and independently of them
    assert x[x != 0].mean().item() == pytest.approx(0, abs=0.01)
    assert x[x != 0].square().mean().item() == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("p", [0.02, 0.5])
def test_the_training_loss_and_its_gradient_are_those_of_the_plain_loss(p):
    M = torch.stack([mixing.mixing(kind, 0.1, n=12) for kind in ("none", "symmetric", "asymmetric")])
    W = [(W + 0.1 * i).requires_grad_() for i, W in enumerate(mixing.untrained(3, n=12, d=5))]
    mlp, x = mixing.MLP(*W), mixing.inputs(p, 64, torch.Generator().manual_seed(0), n=12)
    factor = mixing.share_on(p, 12) / p
    plain = sum(F.mse_loss(mlp.model(i)(x), mixing.labels(x, M[i])) for i in range(3)) * factor
    constant = mixing.labels(x, M).square().sum() / 64 / 12 * factor
    quick = mixing.training_loss(mlp, M, x, p)
    torch.testing.assert_close(quick + constant, plain, rtol=1e-5, atol=0)
    for quick_grad, grad in zip(torch.autograd.grad(quick, W), torch.autograd.grad(plain, W), strict=True):
        torch.testing.assert_close(quick_grad, grad, rtol=1e-4, atol=1e-6)


def test_a_model_trained_among_others_is_the_one_trained_alone():
    settings = mixing.Training(steps=30, rows=256)
    M = torch.stack([mixing.mixing(kind, 0.03) for kind in ("embedding", "asymmetric")])
    *_, both = mixing.train(M, 0.01, settings=settings)
    for i in range(2):
        *_, alone = mixing.train(M[i : i + 1], 0.01, settings=settings)
        torch.testing.assert_close(both.product[i], alone.product[0], rtol=1e-3, atol=1e-4)


def test_training_goes_on_from_a_start_and_leaves_it_alone():
    M = torch.zeros(1, 100, 100)
    start = mixing.MLP(*(W[None] for W in mixing.naive()))
    before = start.W_in.clone()
    *_, mlp = mixing.train(M, 0.01, start=start, settings=mixing.Training(steps=5, rows=64))
    assert torch.equal(start.W_in, before)
    assert 0 < (mlp.W_in - start.W_in).abs().max() < 0.02  # five steps of at most lr each


@pytest.mark.parametrize("kind", mixing.SIGMAS)
def test_the_naive_loss_is_what_sampling_finds(kind):
    M = mixing.mixing(kind, 0.03)
    found = mixing.loss_per_feature(mixing.naive(), M, 0.05).item()
    assert mixing.naive_loss(M) == pytest.approx(found, rel=0.02)


def test_the_offset_is_worth_what_the_papers_say():
    assert mixing.naive_loss(torch.zeros(100, 100)) == pytest.approx(1 / 12)
    assert mixing.offset_loss(0.1) == pytest.approx(0.0813, abs=5e-5)
    assert mixing.offset_loss(1.0) == pytest.approx(0.0531, abs=5e-5)
    assert mixing.best_offset(1.0, d=1) == pytest.approx(0.25 * 0.25 * 6)  # E[s] = 1/4, E[s²] = 1/6


@pytest.mark.parametrize("p", [0.1, 1.0])
def test_no_offset_beats_the_best_one(p):
    M, best = torch.zeros(100, 100), mixing.best_offset(p)
    at, below, above = (
        mixing.loss_per_feature(mixing.naive(offset=b), M, p, rows=20_000).item()
        for b in (best, 0.8 * best, 1.2 * best)
    )
    assert at == pytest.approx(mixing.offset_loss(p), rel=0.02)
    assert at < min(below, above)


@pytest.mark.parametrize("p", [0.05, 1.0])
def test_a_loss_is_the_linear_part_and_that_of_the_even_functions(p):
    M, draw = mixing.mixing("asymmetric", 0.1, n=10), torch.Generator().manual_seed(1)
    mlp = mixing.untrained(1, n=10, d=4).model(0)
    x = mixing.inputs(p, 200_000, draw, n=10)
    even = (mlp(x) + mlp(-x) - x.abs()) / 2
    odd = (mlp(x) - mlp(-x)) / 2 - x / 2 - x @ M.T
    scale = mixing.share_on(p, 10) / p
    assert mixing.linear_loss(mlp, M).item() == pytest.approx(odd.square().mean().item() * scale, rel=0.02)
    parts = mixing.linear_loss(mlp, M).item() + even.square().mean().item() * scale
    assert mixing.loss_per_feature(mlp, M, p).item() == pytest.approx(parts, rel=0.02)


def test_the_naive_mlp_misses_as_much_of_the_linear_part_as_must_be_missed():
    clean = torch.zeros(100, 100)
    assert mixing.linear_loss(mixing.naive(), clean).item() == pytest.approx(1 / 24)
    assert mixing.linear_bound(clean).item() == pytest.approx(1 / 24)
    M = torch.tensor([0.5, -0.5]).diag()  # wanted: gain 2 along the first axis, none along the second
    assert mixing.linear_bound(M, d=1).item() == pytest.approx(0)
    exact = mixing.MLP(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0], [0.0]]))
    assert mixing.linear_loss(exact, M).item() == pytest.approx(0)


def test_half_fit_is_the_error_on_single_features_of_the_best_low_rank_matrix():
    M = mixing.mixing("asymmetric", 0.1, n=10)
    assert mixing.half_fit_loss(torch.zeros(10, 10), d=5).item() == pytest.approx(1 / 12)
    U, s, V = torch.linalg.svd(torch.eye(10) + M)
    best = U[:, :4] @ s[:4].diag() @ V[:4]
    sizes, place = torch.rand(40_000, 1, generator=torch.Generator().manual_seed(0)), torch.arange(40_000) % 10
    x = sizes * torch.eye(10)[place]
    errors = ((x @ best.T - mixing.labels(x, M)).square() + mixing.labels(-x, M).square()).mean() / 2
    # a row has one feature on, where one in n p has: so L / p is n times the mean over these rows
    assert mixing.half_fit_loss(M, d=4).item() == pytest.approx(errors.item() * 10, rel=0.02)


def test_semi_nmf_finds_factors_that_were_put_in():
    draw = torch.Generator().manual_seed(0)
    V, U = torch.randn(8, 3, generator=draw), torch.rand(3, 8, generator=draw)
    found = mixing.semi_nmf(V @ U, d=3, steps=2000)
    assert found.W_in.min() >= 0
    assert (found.product - V @ U).norm() < 0.05 * (V @ U).norm()


def test_directions_of_a_projection_are_kept_up_to_k():
    M = mixing.mixing("symmetric", 0.03, n=20)
    found = subspaces.along_directions(1.5 * subspaces.project(M, 12) + 1e-4 * torch.randn(20, 20), M)
    assert (found.strength.diff() <= 0).all()
    assert found.gain.numpy() == pytest.approx([1.5] * 12 + [0.0] * 8, abs=0.01)
    assert found.cosine[:12].min() > 0.999
    assert found.cosine[12:].abs().max() < 1  # only what was added there is left


def test_directions_of_an_asymmetric_matrix_are_its_singular_vectors():
    M = mixing.mixing("asymmetric", 0.03, n=20)
    found = subspaces.along_directions(2 * M, M)
    torch.testing.assert_close(found.gain, 2 * found.strength, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.cosine, torch.ones(20), atol=1e-4, rtol=0)


def test_subspace_overlap_is_the_mean_squared_cosine_of_principal_angles():
    eye, tilt = torch.eye(4), torch.tensor(0.3)
    assert subspaces.subspace_overlap(eye[:, :2], eye[:, :2] @ torch.tensor([[1.0, 2.0], [3.0, 4.0]])) == (
        pytest.approx(1, abs=1e-6)
    )
    assert subspaces.subspace_overlap(eye[:, :2], eye[:, 2:]) == pytest.approx(0, abs=1e-12)
    turned = torch.stack([eye[:, 0], tilt.cos() * eye[:, 1] + tilt.sin() * eye[:, 2]], dim=1)
    assert subspaces.subspace_overlap(eye[:, :2], 5 * turned) == pytest.approx((1 + tilt.cos().item() ** 2) / 2)
    assert subspaces.subspace_overlap(eye[:, :1], eye[:, :3]) == pytest.approx(1)


def test_the_line_through_two_points():
    assert mixing.line(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 8.0])) == pytest.approx((3.0, -1.0))


def test_a_curve_crosses_a_level_where_it_last_rises_through_it():
    assert mixing.crossing([0, 1, 2, 3, 4], [0, 2, 0, 4, 6], level=1) == pytest.approx(2.25)


def test_a_sweep_has_a_row_for_each_point():
    settings = mixing.Training(steps=3, rows=32)
    grid = {"kind": ["none", "symmetric"], "p": [0.01, 0.5]}
    table = mixing.sweep(grid, settings=settings, keep=True, rows=100, show_progress=False)
    assert table["kind"].tolist() == ["none", "none", "symmetric", "symmetric"]
    assert table["p"].tolist() == [0.01, 0.5, 0.01, 0.5]
    assert table["sigma"].tolist() == [0, 0, 0.033, 0.033]
    row = table.iloc[2]
    kept = mixing.MLP(row["kept"]["W_in"], row["kept"]["W_out"])
    assert mixing.loss_per_feature(kept, row["kept"]["M"], 0.01, rows=100).item() == pytest.approx(row["loss"])
    assert table["loss"][0] == table["clean_loss"][0]


@pytest.fixture(scope="module")
def tables():
    return {name: pdh.shipped_sweep("mlp/mixing", name) for name in ("models", "sigma", "probability")}


class TestTheShippedSweeps:
    """What notebook 04 says of them."""

    def test_a_kept_model_has_the_recorded_losses(self, tables):
        for row in tables["models"].itertuples():
            mlp, M = mixing.MLP(row.kept["W_in"], row.kept["W_out"]), row.kept["M"]
            torch.testing.assert_close(M, mixing.mixing(row.kind, row.sigma, seed=row.seed))
            assert mixing.loss_per_feature(mlp, M, row.p).item() == pytest.approx(row.loss, rel=0.02)
            assert mixing.linear_loss(mlp, M).item() == pytest.approx(row.linear_loss, rel=1e-4)

    def test_clean_labels_stay_at_the_naive_loss_where_inputs_are_sparse(self, tables):
        table = tables["probability"]
        clean = table[(table["kind"] == "none") & (table["p"] < 0.05)]["loss"]
        assert clean.to_numpy() == pytest.approx(1 / 12, abs=1e-3)

    def test_mixing_goes_below_it_and_no_network_does_on_clean_labels(self, tables):
        losses = tables["models"].set_index("kind")["loss"]
        assert losses[["embedding", "flipped", "symmetric"]].between(0.063, 0.069).all()
        assert 0.074 < losses["asymmetric"] < 0.077
        assert (tables["sigma"]["clean_loss"] > 1 / 12).all()

    def test_the_nonlinear_part_is_never_below_that_of_the_naive_solution(self, tables):
        at_001 = pandas.concat([tables["models"], tables["sigma"]])
        assert (at_001["loss"] - at_001["linear_loss"] > 1 / 24 - 5e-4).all()
        assert (at_001.query("0 < sigma < 0.065")["linear_loss"] < 1 / 24).all()
