"""KL divergence in place of squared error: the loss against torch's, and SPD's training on a classifier's logits."""

import math

import pytest
import torch
import torch.nn.functional as F
from networks import MLP, SHARP, draw, one_thread, randomize, replay  # noqa: F401
from torch import Generator

import pd_helpers as pdh
from pd_helpers import losses, spd
from pd_helpers.causal_importance import CausalImportance, hard_sigmoid, lower_leaky, sample_masks
from pd_helpers.components import decompose
from pd_helpers.runs import N_EVALUATION
from pd_helpers.training import generator

pytestmark = pytest.mark.usefixtures("one_thread")


def test_divergence_by_hand():
    even, tilted = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])  # probabilities (1/2, 1/2) and (3/4, 1/4)
    forth = 0.5 * math.log(4 / 3)
    back = 0.75 * math.log(3 / 2) + 0.25 * math.log(1 / 2)
    assert losses.divergence(tilted, even).item() == pytest.approx(forth)
    assert losses.divergence(even, tilted).item() == pytest.approx(back)
    assert losses.divergence(tilted, even, 4).item() == pytest.approx(forth / 4)  # three more rows without error


def test_divergence_is_torchs_between_the_softmaxes():
    output, target = draw(6, 5, seed=1), draw(6, 5, seed=2)
    truth = F.kl_div(output.log_softmax(1), target.softmax(1), reduction="batchmean")
    torch.testing.assert_close(losses.divergence(output, target), truth, **SHARP)
    shifted = output + draw(6, 1, seed=3)  # a classifier does not care
    torch.testing.assert_close(losses.divergence(shifted, target), truth, **SHARP)


def test_training_compares_outputs_as_the_configuration_says():
    """The first step's losses, from the same masks."""
    model = randomize(decompose(randomize(MLP(d_out=4)), {"fc1": 5, "fc2": 3}, rank=1), seed=1)
    importance = randomize(CausalImportance(model, d_gate=3, generator=Generator()), seed=2)
    x = draw(10, 3)
    with torch.no_grad():
        g = lower_leaky(importance(model.inner(model.target_forward(x).inputs)))
        together, apart = map(importance.split, sample_masks(g.expand(2, -1, -1), Generator().manual_seed(5)))
        wanted = torch.distributions.Categorical(logits=model.target(x))

        def divergence(masks):
            given = torch.distributions.Categorical(logits=model(x, masks).output)
            return torch.distributions.kl_divergence(wanted, given).mean()

        recon = divergence(together)
        layerwise = (divergence({"fc1": apart["fc1"]}) + divergence({"fc2": apart["fc2"]})) / 2
    config = spd.SPDConfig(C=5, d_gate=3, batch_size=10, steps=1, output_loss="kl")
    state = spd.start(model, importance, config, Generator().manual_seed(5))
    found = next(spd.train(model, importance, replay(lambda _: x), config, state))
    torch.testing.assert_close(found.recon, recon, **SHARP)
    torch.testing.assert_close(found.recon_layerwise, layerwise, **SHARP)


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
        gates = run.importance(run.components.inner(run.components.target_forward(x).inputs))
        g = run.importance.split(hard_sigmoid(gates))
        y = run.components(x, {use: sample_masks(value, again) for use, value in g.items()}).output
        p, q = target(x).softmax(1), y.softmax(1)
        truth = {"mse": (y - target(x)).square().mean(), "kl": (p * (p / q).log()).sum(1).mean()}[name]
    assert run.metrics["recon"] == pytest.approx(truth.item(), rel=1e-4)
    stored = pdh.load(run.save(tmp_path / "run"), target=MLP())
    assert stored.config.output_loss == name
