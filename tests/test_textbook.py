"""The textbook by hand, and the core against it on every experiment of the papers."""

import pytest
import torch
from networks import SHARP, begun, draw, residual_mlp
from torch import Generator

import pd_helpers as pdh
from benchmarks import pair, textbook
from pd_helpers.core import apd
from pd_helpers.core.components import decompose
from pd_helpers.targets.base import TrainedConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def two_features(U=(), V=()):
    """W = (1 2), b = 0: x = (1, 1) has hidden 3 and output (3, 6)."""
    model = textbook.toy_model(torch.tensor([[1.0, 2.0]]), torch.zeros(2))
    model.U, model.V = {"embed": torch.tensor(U)}, {"embed": torch.tensor(V)}
    return model


ONES = torch.ones(1, 2)
COLUMNS = two_features(U=[[[1.0]], [[1.0]]], V=[[[1.0, 0.0]], [[0.0, 2.0]]])  # P = (1 0) and (0 2)


def test_forward_passes_by_hand():
    target = textbook.target(COLUMNS, ONES)
    assert target.output.tolist() == [[3.0, 6.0]]
    assert target.inputs["unembed"].tolist() == [[3.0]]
    one = torch.tensor([[1.0, 0.0]])
    assert textbook.masked(COLUMNS, ONES, {"embed": one}).output.tolist() == [[1.0, 2.0]]
    assert textbook.masked(COLUMNS, ONES, {"unembed": one}).output.tolist() == [[3.0, 0.0]]
    assert textbook.masked(COLUMNS, ONES, {"embed": one, "unembed": 2 * one}).output.tolist() == [[2.0, 0.0]]


def test_attributions_by_hand():
    # P = (1 0): d output = Pᵀ W x + Wᵀ P x = (3, 0) + (1, 2) = (4, 2); rms = √((16 + 4) / 2) = √10.
    # P = (0 2): (0, 6) + (2, 4) = (2, 10); rms = √52.
    A = textbook.attributions(COLUMNS, COLUMNS.W, COLUMNS.P, ONES)
    torch.testing.assert_close(A, torch.tensor([[10.0, 52.0]]).sqrt())


def test_batch_top_k_by_hand():
    A = torch.tensor([[5.0, 4.0, 3.0], [1.0, 0.5, 0.0]])
    assert textbook.batch_top_k(A, 3).tolist() == [[1, 1, 1], [0, 0, 0]]
    assert textbook.batch_top_k(A, 6).tolist() == [[1, 1, 1], [1, 1, 0]]


def test_losses_by_hand():
    assert textbook.faithfulness(COLUMNS) == 0
    short = two_features(U=[[[1.0]], [[1.0]]], V=[[[1.0, 0.0]], [[0.0, 1.0]]])
    assert textbook.faithfulness(short) == (0 + 1) / 2
    one = torch.tensor([[1.0, 0.0]])
    assert textbook.reconstruction(COLUMNS, ONES, {"embed": one}) == ((3 - 1) ** 2 + (6 - 2) ** 2) / 2
    # Two rows: the first pays for both components, ‖P‖ = 1 and 2, the second for one; W counts twice in both sums.
    active = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    for p, norm in ((1.0, 2.0), (2.0, 4.0)):
        torch.testing.assert_close(textbook.simplicity(COLUMNS, active, p), torch.tensor(2 * (1 + 2 * norm) / 2 / 4))


def test_importance_by_hand():
    x = torch.tensor([-2.0, 0.25, 3.0])
    torch.testing.assert_close(textbook.lower_leaky(x), torch.tensor([-0.02, 0.25, 1.0]))
    torch.testing.assert_close(textbook.upper_leaky(x), torch.tensor([0.0, 0.25, 1.02]))
    logits = {"a": torch.tensor([[-1.0, 0.5], [2.0, 0.0]]), "b": torch.tensor([[1.0], [0.5]])}
    torch.testing.assert_close(textbook.importance(logits, 2.0), torch.tensor((0.25 + 1.01**2 + 1 + 0.25) / 2))


def test_importance_logits_by_hand():
    def gate(w_in, b_in, w_out, b_out):  # d_gate 1, so far from zero that GELU is 0 or the identity
        column = [torch.tensor([[value], [value]]) for value in (w_in, b_in, w_out)]
        return textbook.Gate(*column, torch.full((2,), b_out))

    model = two_features(U=[[[3.0]], [[5.0]]], V=[[[1.0, 0.0]], [[-1.0, 2.0]]])
    model.gates = {"embed": gate(1.0, 100.0, 0.5, 2.0), "unembed": gate(-100.0, 0.0, 1.0, 7.0)}
    logits = textbook.importance_logits(model, ONES)
    assert logits["embed"].tolist() == [[(1 + 100) * 0.5 + 2, (1 + 100) * 0.5 + 2]]  # V_c x = 1 and 1
    assert logits["unembed"].tolist() == [[7.0, 7.0]]  # hidden 3 times U_c = 9 and 15: switched off


def test_masks_by_hand():
    g = {"a": torch.tensor([[0.0, 0.5, 1.0]])}
    masks = textbook.stochastic_masks(g, lambda value: torch.full_like(value, 0.25))
    assert masks["a"].tolist() == [[0.25, 0.625, 1.0]]


def one_neuron_a_layer(U, V):
    """A stream of width 2 and two layers of one neuron; W_E = I, W_U = (0 1)."""
    W_in = [torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])]
    W_out = [torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]])]
    model = textbook.residual_mlp(torch.eye(2), torch.tensor([[0.0, 1.0]]), W_in, W_out, [torch.tensor([1.0]), 0.0])
    layers = ("mlps.0.W_in", "mlps.0.W_out", "mlps.1.W_in", "mlps.1.W_out")
    model.U = {layer: torch.tensor([one]) for layer, one in zip(layers, U, strict=True)}
    model.V = {layer: torch.tensor([one]) for layer, one in zip(layers, V, strict=True)}
    return model


# One component, the target itself but for W_in of the first layer, of which it has a half.
HALF = one_neuron_a_layer(
    U=[[[0.5]], [[0.0], [2.0]], [[1.0]], [[1.0], [1.0]]], V=[[[1.0, 0.0]], [[1.0]], [[1.0, 1.0]], [[1.0]]]
)


def test_a_residual_network_by_hand():
    # x = (3, 0): h = ReLU(3 + 1) = 4, s = (3, 0 + 2 · 4) = (3, 8); h = ReLU(11) = 11, s = (14, 19).
    # x = (-2, 0): h = ReLU(-2 + 1) = 0, s = (-2, 0); h = ReLU(-2) = 0, s = (-2, 0).
    forward = textbook.target(HALF, torch.tensor([[3.0, 0.0], [-2.0, 0.0]]))
    assert forward.output.tolist() == [[19.0], [0.0]]
    assert forward.inputs["mlps.0.W_out"].tolist() == [[4.0], [0.0]]
    assert forward.inputs["mlps.1.W_in"].tolist() == [[3.0, 8.0], [-2.0, 0.0]]
    assert forward.inputs["mlps.1.W_out"].tolist() == [[11.0], [0.0]]


def test_hidden_reconstruction_by_hand():
    # With the component: h = ReLU(1.5 + 1) = 2.5, s = (3, 5), h = 8, s = (11, 13), y = 13.
    config = pdh.APDConfig(C=1, top_k=1.0, attribute_at="target", hidden_coeff=1.0)
    losses = textbook.apd_losses(HALF, torch.tensor([[3.0, 0.0]]), config)
    assert losses["minimality"] == (19 - 13) ** 2
    assert losses["hidden"] == ((4 - 2.5) ** 2 + (11 - 8) ** 2) / 2
    assert losses["faithfulness"] == 0.5**2 / 8
    assert textbook.apd_losses(HALF, torch.tensor([[3.0, 0.0]]), config.replace(hidden_coeff=0.0))["hidden"] == 0


def test_unit_norm_by_hand():
    model = two_features(U=[[[5.0]], [[5.0]]], V=[[[3.0, 4.0]], [[0.0, -2.0]]])
    textbook.normalise(model)
    torch.testing.assert_close(model.V["embed"], torch.tensor([[[0.6, 0.8]], [[0.0, -1.0]]]))
    assert model.U["embed"].tolist() == [[[5.0]], [[5.0]]]


def test_training_normalises_before_the_first_step_and_after_every_one():
    model = pair.copied(two_features(U=[[[1.0]], [[1.0]]], V=[[[3.0, 4.0]], [[0.0, -2.0]]]))
    config, lengths = pdh.APDConfig(C=2, unit_norm=True, steps=3), []

    def losses(x):
        lengths.append(model.V["embed"].norm(dim=2).flatten().tolist())
        return {"faithfulness": textbook.faithfulness(model)}

    for _ in textbook.train(model, losses, [ONES] * 3, config):
        lengths.append(model.V["embed"].norm(dim=2).flatten().tolist())
    assert lengths == [pytest.approx([1.0, 1.0])] * 6


def test_every_loss_of_spd_has_masks_of_its_own():
    model = pair.prepare("spd/tms_5-2_id", "cpu", target_steps=10, batch_size=8, faithfulness_warmup_steps=0).textbook
    drawn = []

    def rand_like(g):
        drawn.append(tuple(g.shape))
        return torch.rand_like(g)

    textbook.spd_losses(model, torch.rand(8, 5), pdh.preset("spd/tms_5-2_id").config, rand_like)
    assert drawn == [(8, 20)] * 6  # three uses masked together, then each alone


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"schedule": "constant", "warmup_fraction": 0.4}, [0.5, 1, 1.5, 2, 2, 2, 2, 2, 2, 2]),
        ({"schedule": "cosine", "warmup_fraction": 0.0, "steps": 4}, [2, 1 + 2**-0.5, 1, 1 - 2**-0.5]),
    ],
)
def test_learning_rates_by_hand(settings, rates):
    config = pdh.APDConfig(**{"steps": 10, "lr": 2.0, **settings})
    assert [textbook.learning_rate(step, config) for step in range(config.steps)] == pytest.approx(rates)


SIZES = {
    "tms": {},
    "residual_mlp": {"n_features": 6, "d_resid": 50, "d_mlp": 5, "C": 7, "feature_probability": 0.2},
    "gated": {"n_functions": 3, "n_neurons": 4, "feature_probability": 0.3, "top_k": 1.0},
    "pingpong": {"n_groups": 3, "n_circuits": 2, "C": 7},
    "induction": {"vocabulary": 6, "length": 7, "d_model": 4, "C": 5},
}
"""Kind of target → sizes at which the textbook is quick."""


def small(name, **changes):
    """The fields to change of a preset; ranks of 1 and 4 stay, full ones shrink with the network."""
    experiment = pdh.preset(name)
    sizes = {**SIZES[experiment.target.kind], "batch_size": 256, "faithfulness_warmup_steps": 20, **changes}
    if isinstance(experiment.target, TrainedConfig):
        sizes["target_steps"] = 200
    if (experiment.config.rank or 0) > 4:
        sizes["rank"] = 6
    return sizes


@pytest.mark.parametrize("name", pdh.PRESETS)
def test_the_core_computes_the_textbooks_losses_and_gradients(name):
    """After a few steps of training, on a batch of the preset's data; see `pair` for what is compared."""
    both = pair.prepare(name, "cpu", **small(name))
    for _ in zip(range(5), both.textbook_steps(), strict=False):
        pass
    assert both.max_abs_diff(torch.float64) < 1e-12
    assert both.max_abs_diff(torch.float32) < 1e-4


NEW = [name for name in pdh.PRESETS if pdh.preset(name).target.kind != "tms"]


@pytest.mark.parametrize("name", NEW)
def test_the_core_trains_as_the_textbook_does(name):
    """On the wide network, in float64: Adam, step by step, does not do the same in another basis of the stream."""
    settings = pair.comparable(pdh.preset(name).settings).replace(**small(name, steps=12, batch_size=64, lr=0.01))
    config, target = settings.config, pdh.make_target(settings.target, 0, show_progress=False).double()
    components = decompose(target, dict.fromkeys(target.layers, config.C), rank=config.rank)
    method, same = begun(components, config, seed=5), Generator().manual_seed(5)
    shared = pair.in_textbook(pair.undecomposed(target), method)
    truth = pair.copied(shared)
    batches = [settings.target.features()(64, Generator().manual_seed(i)) for i in range(config.steps)]
    batches = [x.double() if x.is_floating_point() else x for x in batches]
    true_losses = pair.losses_of(truth, config, components, same)
    mine = method.train(pair.in_turn(iter(batches)))
    for losses, true in zip(mine, textbook.train(truth, true_losses, batches, config), strict=True):
        torch.testing.assert_close(losses._asdict(), true, rtol=1e-7, atol=1e-10)
        for parameter, true_parameter in zip(shared.parameters, truth.parameters, strict=True):
            torch.testing.assert_close(parameter, true_parameter, rtol=1e-6, atol=1e-7)
    if method.spans_layers:
        assert (losses.hidden > 0) == (config.hidden_coeff > 0)


def test_the_difference_notices_another_threshold():
    """What the test above measures is not blind: a top-k of one pair more shows."""
    both = pair.prepare("apd/tms_5-2", "cpu", target_steps=200, batch_size=256, faithfulness_warmup_steps=20)
    before = textbook.batch_top_k
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textbook, "batch_top_k", lambda A, k: before(A, k + 1))
        assert both.max_abs_diff(torch.float64) > 1e-6


@pytest.mark.parametrize("wrong", ["divisor", "hidden", "unit norm"])
def test_the_difference_notices_a_wrong_residual_network(wrong):
    name = "apd/resid_mlp_1_rank4"
    both = pair.prepare(name, "cpu", **small(name))
    assert both.max_abs_diff(torch.float64) < 1e-12
    with pytest.MonkeyPatch.context() as patch:
        if wrong == "divisor":  # the mean over the narrow network's parameters
            patch.delattr(pdh.ResidualMLP, "parameter_count")
        elif wrong == "hidden":  # compared at other layers
            patch.setattr(pdh.ResidualMLP, "hidden_layers", ["mlps.0.W_in"])
        else:  # the core starts from rows of another length
            patch.setattr(apd, "normalise_", lambda model: None)
            both.textbook.V["mlps.0.W_in"].data *= 2
        assert both.max_abs_diff(torch.float64) > 1e-7


def test_the_toy_models_are_those_of_the_package():
    for identity in (False, True):
        target = pdh.TMS(n_features=4, n_hidden=3, identity=identity).double()
        for i, parameter in enumerate(target.parameters()):
            parameter.data.copy_(draw(*parameter.shape, seed=i))
        x = draw(6, 4, seed=9)
        torch.testing.assert_close(textbook.target(pair.undecomposed(target), x).output, target(x), **SHARP)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_the_residual_networks_are_those_of_the_package(n_layers, bias):
    target, x = residual_mlp(n_layers, bias, tied=False, n_outputs=5), draw(6, 4, seed=9)
    torch.testing.assert_close(textbook.target(pair.undecomposed(target), x).output, target(x), **SHARP)


def test_a_network_that_the_textbook_does_not_know_is_refused():
    with pytest.raises(TypeError, match="the textbook has no Linear"):
        pair.undecomposed(torch.nn.Linear(2, 2))
