"""KL divergence in place of squared error: the loss against torch's, and SPD's training on a classifier's logits."""

import math

import pytest
import torch
import torch.nn.functional as F
from networks import MLP, SHARP, begun, draw, randomize, replay
from torch import Generator

import pd_helpers as pdh
from pd_helpers.core import losses, spd
from pd_helpers.core.causal_importance import hard_sigmoid, lower_leaky, sample_masks
from pd_helpers.core.components import decompose
from pd_helpers.core.training import generator
from pd_helpers.runs.evaluation import N_EVALUATION

pytestmark = pytest.mark.usefixtures("one_thread")


def test_divergence_by_hand():
    even, tilted = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])  # probabilities (1/2, 1/2) and (3/4, 1/4)
    forth = 0.5 * math.log(4 / 3)
    back = 0.75 * math.log(3 / 2) + 0.25 * math.log(1 / 2)
    assert losses.kl_divergence(tilted, even).item() == pytest.approx(forth)
    assert losses.kl_divergence(even, tilted).item() == pytest.approx(back)
    assert losses.kl_divergence(tilted, even, 4).item() == pytest.approx(forth / 4)  # three more rows without error


def test_divergence_is_torchs_between_the_softmaxes():
    output, target = draw(6, 5, seed=1), draw(6, 5, seed=2)
    truth = F.kl_div(output.log_softmax(1), target.softmax(1), reduction="batchmean")
    torch.testing.assert_close(losses.kl_divergence(output, target), truth, **SHARP)
    shifted = output + draw(6, 1, seed=3)  # a classifier does not care
    torch.testing.assert_close(losses.kl_divergence(shifted, target), truth, **SHARP)


def test_training_compares_outputs_as_the_configuration_says():
    """The first step's losses, from the same masks."""
    model = randomize(decompose(randomize(MLP(d_out=4)), {"fc1": 5, "fc2": 3}, rank=1), seed=1)
    config = spd.SPDConfig(C=5, d_gate=3, batch_size=10, steps=1, output_loss="kl")
    method = begun(model, config, seed=5)
    importance = randomize(method.importance, seed=2)
    x = draw(10, 3)
    with torch.no_grad():
        (table,) = importance(model.inner(model.target_forward(x).inputs))
        g = lower_leaky(table.values)
        together, apart = map(method.split, sample_masks(g.expand(2, -1, -1), Generator().manual_seed(5)))
        wanted = torch.distributions.Categorical(logits=model.target(x))

        def divergence(masks):
            given = torch.distributions.Categorical(logits=model(x, masks).output)
            return torch.distributions.kl_divergence(wanted, given).mean()

        recon = divergence(together)
        layerwise = (divergence({"fc1": apart["fc1"]}) + divergence({"fc2": apart["fc2"]})) / 2
    loss = next(method.train(replay(lambda _: x)))
    torch.testing.assert_close(loss.recon, recon, **SHARP)
    torch.testing.assert_close(loss.recon_layerwise, layerwise, **SHARP)


@pytest.mark.parametrize("name", ["mse", "kl"])
def test_a_finished_run_is_measured_by_its_own_loss(name, tmp_path):
    def data(n, g):
        return torch.rand(n, 3, generator=g)

    target = randomize(MLP(), seed=4).float()
    config = pdh.SPDConfig(C=4, d_gate=3, steps=3, batch_size=8, output_loss=name)
    run = pdh.fit(target, config, data, ["fc1", "fc2"], device="cpu", show_progress=False)
    with torch.no_grad():
        again = generator(0, "evaluation")
        x = data(N_EVALUATION, again)
        (table,) = run.importance(run.components.inner(run.components.target_forward(x).inputs))
        gates = table.values
        g = run.method.split(hard_sigmoid(gates))
        y = run.components(x, {use: sample_masks(value, again) for use, value in g.items()}).output
        p, q = target(x).softmax(1), y.softmax(1)
        truth = {"mse": (y - target(x)).square().mean(), "kl": (p * (p / q).log()).sum(1).mean()}[name]
    assert run.metrics["recon"] == pytest.approx(truth.item(), rel=1e-4)
    stored = pdh.load(run.save(tmp_path / "run"), target=MLP())
    assert stored.config.output_loss == name
