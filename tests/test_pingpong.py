"""Ping-pong superposition in small: a network whose circuits are known, and what tells its decompositions apart."""

import math

import pytest
import torch
from networks import begun
from torch import Generator
from torch.nn.functional import gelu, one_hot

import pd_helpers as pdh
from pd_helpers.core.components import decompose
from pd_helpers.targets.pingpong import PingPongConfig
from pd_helpers.targets.tms import TMSConfig

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = PingPongConfig(n_groups=3, n_circuits=4)


@pytest.fixture(scope="module")
def network():
    return pdh.make_target(CONFIG, 1, show_progress=False)


def circuits(network):
    """The matrix of every circuit (n_features, d_out, d_in): its own column of W, and zeros elsewhere."""
    W = network.layer.weight
    return W.T.unsqueeze(2) * torch.eye(W.shape[1]).unsqueeze(1)


def of_groups(network):
    """The sum of each group's circuits (n_groups, d_out, d_in)."""
    return torch.stack([circuits(network)[network.groups == g].sum(dim=0) for g in range(network.n_groups)])


def test_features_of_a_group_come_one_after_the_other(network):
    assert network.groups.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert (network.n_features, network.n_groups, network.layers) == (12, 3, ("layer",))


def test_circuits_of_a_group_write_one_direction_and_groups_write_orthogonal_ones(network):
    W = network.layer.weight  # (3, 12)
    together = network.groups.unsqueeze(0) == network.groups.unsqueeze(1)
    torch.testing.assert_close(W.T @ W, together.float(), rtol=0, atol=1e-6)


def test_circuits_and_groups_add_up_to_the_network_and_are_of_rank_one(network):
    for parts in (circuits(network), of_groups(network)):
        torch.testing.assert_close(parts.sum(dim=0), network.layer.weight)
        assert torch.linalg.matrix_rank(parts).tolist() == [1] * len(parts)
    assert (len(circuits(network)), len(of_groups(network))) == (12, 3)


def test_one_circuit_is_active_at_a_time_and_each_equally_often():
    x = CONFIG.features()(24_000, Generator().manual_seed(0))
    assert (x.count_nonzero(dim=1) <= 1).all()  # fewer where a size is exactly 0
    assert (x >= 0).all()
    assert (x < 1).all()
    torch.testing.assert_close((x > 0).float().mean(dim=0), torch.full((12,), 1 / 12), rtol=0, atol=0.01)
    torch.testing.assert_close(x.sum(dim=1).mean(), torch.tensor(0.5), rtol=0, atol=0.01)
    again = CONFIG.features()(24_000, Generator().manual_seed(0))
    assert torch.equal(x, again)


def test_the_seed_decides_the_directions():
    first, same, other = (pdh.make_target(CONFIG, seed, show_progress=False).layer.weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert (first - other).abs().max() > 0.1
    assert not first.requires_grad


def test_sizes_are_read_off_the_network(network):
    assert PingPongConfig.sizes(network) == {"n_groups": 3, "n_circuits": 4}
    assert PingPongConfig.sizes(pdh.make_target(TMSConfig(target_steps=1), show_progress=False)) is None
    assert CONFIG.matrices == [(1, 3, 12)]
    assert CONFIG.n_floats == network.layer.weight.numel() == CONFIG.extent.n_parameters
    assert (CONFIG.extent.n_mechanisms, CONFIG.extent.n_outputs) == (12, 3)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="n_groups must be a whole number of at least 1, but is 0; 4 works"):
        PingPongConfig(n_groups=0)
    with pytest.raises(ValueError, match=r"n_groups must fit into memory"):
        pdh.PingPong(n_groups=10**9, n_circuits=10**9)


def written_by_hand(network, parts, owner):
    """VPD whose subcomponents are these parts, and whose importances are 1 where the part of a feature is needed."""
    config = pdh.VPDConfig(C=len(parts), d_gate=12, importance_p=1.0, importance_p_end=1.0, frequency_a=12.0)
    method = begun(decompose(network, {"layer": len(parts)}, rank=1), config)
    layer, mlps = method.model.layers["layer"], method.importance
    with torch.no_grad():
        for c, part in enumerate(parts):  # each has one row space of zeros and ones
            reads = (part.norm(dim=0) > 0.5).float()
            layer.V[c, 0], layer.U[c, :, 0] = reads, part @ reads / reads.sum()
        mlps.w_in[0].copy_(2 * torch.eye(12))
        mlps.w_out[0].copy_(one_hot(owner, len(parts)).T / gelu(torch.tensor(1.0)))
        mlps.b_in[0].zero_()
        mlps.b_out[0].zero_()
    return method


def test_of_all_losses_only_frequency_tells_circuits_from_groups(network):
    x = 0.5 * torch.eye(12)  # each circuit once
    cases = {"circuits": (circuits(network), torch.arange(12)), "groups": (of_groups(network), network.groups)}
    for name, (parts, owner) in cases.items():
        method = written_by_hand(network, parts, owner)
        found = {term: value.item() for term, value in method.batch_losses(x, Generator())._asdict().items()}
        importance, frequency = found.pop("importance_minimality"), found.pop("frequency_minimality")
        assert importance == pytest.approx(1, rel=1e-5)
        assert frequency == pytest.approx(math.log2(1 + {"circuits": 1, "groups": 4}[name]), rel=1e-5)
        assert found == pytest.approx(dict.fromkeys(found, 0), abs=1e-10)  # no masks change anything


def test_it_is_run_and_measured_like_the_networks_of_the_papers(tmp_path):
    sizes = {"n_groups": 3, "n_circuits": 4, "C": 14}
    run = pdh.run("vpd/pingpong", 1, **sizes, steps=5, batch_size=64, show_progress=False, device="cpu")
    assert {"mmcs", "ml2r", "identity_ci_error", "n_alive", "faithfulness"} <= set(run.metrics)
    assert run.metrics["faithfulness"] < 1e-2
    loaded = pdh.load(run.save(tmp_path / "run"))
    assert isinstance(loaded.target, pdh.PingPong)
    assert loaded.metrics == run.metrics
    assert torch.equal(loaded.target.layer.weight, pdh.make_target(CONFIG, 1, show_progress=False).layer.weight)


def test_it_is_fitted_like_a_network_of_ones_own(network):
    config = pdh.SPDConfig(C=14, steps=5, batch_size=64, faithfulness_warmup_steps=5)
    run = pdh.fit(network, config, CONFIG.features(), ["layer"], seed=0, show_progress=False, device="cpu")
    assert set(run.metrics["n_alive"]) == {"layer"}
    assert run.importances(torch.eye(12))["layer"].shape == (12, 14)
