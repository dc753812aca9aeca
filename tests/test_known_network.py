"""Only networks that say so are asked what they know; names alone mean nothing."""

import torch
from networks import MLP, draw, randomize
from torch import Generator

import pd_helpers as pdh
from pd_helpers.core.attributions import attributions
from pd_helpers.core.components import decompose
from pd_helpers.core.known_network import KnownNetwork


class Namesake(MLP):
    """A network of one's own that happens to have methods and attributes of these names."""

    hidden = hidden_layers = ("fc1",)

    def __init__(self):
        super().__init__()
        self.fc1.n_parameters = 7

    def attributions(self, *arguments):
        raise AssertionError("was asked")

    closed_form_attributions = parameter_count = attributions


class Confident(KnownNetwork):
    """A network that claims a closed form, wrongly, and to stand for a larger one."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x)

    def closed_form_attributions(self, x, factors, weights):
        return torch.full((len(x), 2), 5.0)

    def parameter_count(self, layer):
        return 600

    @property
    def hidden_layers(self):
        return []


def test_a_network_of_your_own_is_not_asked():
    network = randomize(Namesake())
    model = decompose(network, {"fc1": 2, "fc2": 2})
    assert model.n_parameters == {"fc1": 12, "fc2": 8}
    assert model.hidden == ["fc1", "fc2"]
    directions = {"fc1": draw(2, 4, 3)}
    plain = MLP().double()
    plain.load_state_dict(network.state_dict())
    x = draw(5, 3)
    torch.testing.assert_close(attributions(network, x, directions), attributions(plain, x, directions))


def test_a_namesake_is_decomposed():
    def data(n, generator):
        return torch.randn(n, 3, generator=generator)

    config = pdh.APDConfig(C=3, steps=3, batch_size=8, top_k=1.0, hidden_coeff=1.0)
    run = pdh.fit(Namesake(), config, data, ["fc1", "fc2"], show_progress=False, device="cpu")
    assert run.history["hidden"].gt(0).all()


def test_a_network_that_says_so_is_asked():
    model = decompose(Confident(), {"fc": 2}, generator=Generator().manual_seed(0))
    assert model.n_parameters == {"fc": 600}
    assert model.hidden == []
    factors = {"fc": (model.layers["fc"].U, model.layers["fc"].V)}
    assert (attributions(model.target, torch.rand(4, 3), factors) == 5).all()
