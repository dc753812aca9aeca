"""The textbook by hand, and the core against it on every experiment of the papers."""

import pytest
import torch
from networks import SHARP, draw, one_thread  # noqa: F401

import pd_helpers as pdh
from benchmarks import pair, textbook

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
    assert textbook.masked(COLUMNS, ONES, {"embed": one}).tolist() == [[1.0, 2.0]]
    assert textbook.masked(COLUMNS, ONES, {"unembed": one}).tolist() == [[3.0, 0.0]]
    assert textbook.masked(COLUMNS, ONES, {"embed": one, "unembed": 2 * one}).tolist() == [[2.0, 0.0]]


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


@pytest.mark.parametrize("name", pdh.PRESETS)
def test_the_core_computes_the_textbooks_losses_and_gradients(name):
    """After a few steps of training, on a batch of the preset's data; see `pair` for what is compared."""
    both = pair.prepare(name, "cpu", target_steps=200, batch_size=256, faithfulness_warmup_steps=20)
    for _ in zip(range(5), both.textbook_steps(), strict=False):
        pass
    assert both.max_abs_diff(torch.float64) < 1e-12
    assert both.max_abs_diff(torch.float32) < 1e-4


def test_the_difference_notices_another_threshold():
    """What the test above measures is not blind: a top-k of one pair more shows."""
    both = pair.prepare("apd/tms_5-2", "cpu", target_steps=200, batch_size=256, faithfulness_warmup_steps=20)
    before = textbook.batch_top_k
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textbook, "batch_top_k", lambda A, k: before(A, k + 1))
        assert both.max_abs_diff(torch.float64) > 1e-6


def test_the_toy_models_are_those_of_the_package():
    for identity in (False, True):
        target = pdh.TMS(n_features=4, n_hidden=3, identity=identity).double()
        for i, parameter in enumerate(target.parameters()):
            parameter.data.copy_(draw(*parameter.shape, seed=i))
        x = draw(6, 4, seed=9)
        torch.testing.assert_close(textbook.target(pair.toy_model(target), x).output, target(x), **SHARP)
