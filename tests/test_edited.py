"""Components put to use: networks with edited weights, networks under masks, and components as plain tensors."""

import math
import pickle
from functools import cache

import numpy as np
import pytest
import safetensors.torch
import torch
from networks import MLP
from torch import nn
from torch.func import functional_call

import pd_helpers as pdh
from pd_helpers.core.components import TransposedLinear

pytestmark = pytest.mark.usefixtures("one_thread", "quick_evaluation", "as_a_user")

SPD = pdh.SPDConfig(C=6, d_gate=3, steps=6, batch_size=16)
APD = pdh.APDConfig(C=6, rank=2, steps=3, batch_size=16, top_k=2.0)
ALL = pytest.mark.parametrize("kind", ["vectors", "sequences", "patches", "tied", "computed"])
BOTH = pytest.mark.parametrize("config", [SPD, APD], ids=["spd", "apd"])


class Tied(nn.Module):
    """A matrix and its transpose, with a network between them that isn't decomposed."""

    def __init__(self):
        super().__init__()
        self.embed, self.between = nn.Linear(6, 4), nn.Linear(4, 4)
        self.unembed = TransposedLinear(self.embed)

    def forward(self, x):
        return self.unembed(torch.relu(self.between(self.embed(x))))


def computed():
    network = MLP(6, 5, 4)
    torch.nn.utils.parametrizations.orthogonal(network.fc1)
    return network


NETWORKS = {
    "vectors": (lambda: MLP(6, 5, 4), (6,), ["fc1", "fc2"]),
    "sequences": (lambda: MLP(6, 5, 4), (3, 6), ["fc1", "fc2"]),
    "patches": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)),
        (1, 4, 4),
        ["0", "3"],
    ),
    "tied": (Tied, (6,), ["embed"]),
    "computed": (computed, (6,), ["fc1", "fc2"]),
}


@cache
def decomposed(kind, config):
    torch.manual_seed(0)
    network, shape, layers = NETWORKS[kind]
    return pdh.fit(network(), config, torch.rand(40, *shape), layers, show_progress=False, device="cpu")


def batch_of(kind, n=5):
    return torch.rand(n, *NETWORKS[kind][1], generator=torch.Generator().manual_seed(1))


def weights(run):
    return {path: run.target.get_submodule(path).weight.detach().clone() for path in run.components.layers}


def changed(run, matrices, x):
    """The target's output with other matrices in place of its own, by torch's own functional call."""
    new = {f"{path}.weight": W.view(run.target.get_submodule(path).weight.shape) for path, W in matrices.items()}
    with torch.no_grad():
        return functional_call(run.target, new, (x,), tie_weights=True)


def everything_of(network):
    """All that must stay as it is."""
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state |= {f"{path} has": set(vars(module)) for path, module in network.named_modules()}
    return state | {f"{name} learns": p.requires_grad for name, p in network.named_parameters()}


def assert_unchanged(before, network):
    after = everything_of(network)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]) if isinstance(value, torch.Tensor) else value == after[name]


# Edited weights


@ALL
@BOTH
def test_no_changes_give_the_network_itself(kind, config):
    run, x = decomposed(kind, config), batch_of(kind)
    for edited in (run.edited(), run.edited({}), run.edited({next(iter(run.components.layers)): {}})):
        assert type(edited) is type(run.target)
        assert torch.equal(edited(x), run.target(x))
        assert all(type(p) is nn.Parameter and p.requires_grad for p in edited.parameters())
        assert not any(module.training for module in edited.modules())
        own = {p.data_ptr() for p in edited.parameters()}
        assert own.isdisjoint(p.data_ptr() for p in run.target.parameters())
        assert torch.equal(pickle.loads(pickle.dumps(edited))(x), run.target(x))


@ALL
@BOTH
def test_scaled_components(kind, config):
    """W + Σ_c (s_c − 1) P_c, also where the components don't add up to W."""
    run, x = decomposed(kind, config), batch_of(kind)
    before, scales = everything_of(run.target), {0: 0.0, 2: 1.5, 5: -1.0}
    edited = run.edited(dict.fromkeys(run.components.layers, scales))
    expected = {}
    for path, W in run.components.targets.items():
        P = run.components.layers[path].P.detach()
        assert not torch.allclose(P.sum(dim=0), W, atol=1e-3)
        expected[path] = W - P[0] + 0.5 * P[2] - 2 * P[5]
        torch.testing.assert_close(edited.get_submodule(path).weight.flatten(), expected[path].flatten())
    torch.testing.assert_close(edited(x).detach(), changed(run, expected, x))
    assert_unchanged(before, run.target)


def test_only_what_is_named_changes():
    run = decomposed("vectors", SPD)
    edited = run.edited({"fc1": {3: 0.0}})
    same = {name for name, p in edited.named_parameters() if torch.equal(p, run.target.get_parameter(name))}
    assert same == {"fc1.bias", "fc2.weight", "fc2.bias"}


def test_a_tied_weight_changes_in_both_uses():
    run = decomposed("tied", SPD)
    edited = run.edited({"embed": {1: 0.0}})
    assert edited.unembed.weight is edited.embed.weight
    with pytest.raises(ValueError, match="'unembed', which uses the weight of 'embed'; 'embed' works"):
        run.edited({"unembed": {1: 0.0}})


def test_swapped_components():
    run, x = decomposed("sequences", SPD), batch_of("sequences")
    W, layer = run.components.targets["fc1"], run.components.layers["fc1"]
    U, V = layer.U[..., 0].detach(), layer.V[:, 0].detach()
    read = (x @ V.T).abs().mean(dim=(0, 1))
    for batch, k in ((None, V[4].norm() / V[1].norm()), (x, read[4] / read[1])):
        edited = run.edited(swaps={"fc1": [(1, 4)]}, batch=batch)
        expected = W + torch.outer(k * U[4] - U[1], V[1]) + torch.outer(U[1] / k - U[4], V[4])
        torch.testing.assert_close(edited.fc1.weight.detach(), expected)


def test_swaps_do_not_depend_on_how_the_factors_share_their_size():
    run = decomposed("vectors", SPD)
    layer, x = run.components.layers["fc1"], batch_of("vectors")
    swapped = [run.edited(swaps={"fc1": [(0, 1)]}, batch=batch).fc1.weight for batch in (None, x)]
    with torch.no_grad():
        layer.U[1] *= 3
        layer.V[1] /= 3
    try:
        for before, batch in zip(swapped, (None, x), strict=True):
            torch.testing.assert_close(run.edited(swaps={"fc1": [(0, 1)]}, batch=batch).fc1.weight, before)
    finally:
        with torch.no_grad():
            layer.U[1] /= 3
            layer.V[1] *= 3


@BOTH
def test_rewritten_components(config):
    run = decomposed("patches", config)
    W, layer = run.components.targets["0"], run.components.layers["0"]
    U = torch.randn(3, layer.rank)
    edited = run.edited(rewrites={"0": {2: U.squeeze(1)}})
    torch.testing.assert_close(edited[0].weight.flatten(1).detach(), (W - layer.P[2] + U @ layer.V[2]).detach())
    edited = run.edited({"0": {2: 3.0}}, rewrites={"0": {2: U.numpy()}})
    torch.testing.assert_close(edited[0].weight.flatten(1).detach(), (W - layer.P[2] + 3 * U @ layer.V[2]).detach())


def test_scales_of_swapped_components():
    run = decomposed("vectors", SPD)
    only_swapped = run.edited(swaps={"fc1": [(1, 4)]}).fc1.weight
    layer = run.components.layers["fc1"]
    k = layer.V[4].norm() / layer.V[1].norm()
    erased = run.edited({"fc1": {1: 0.0}}, swaps={"fc1": [(1, 4)]}).fc1.weight
    torch.testing.assert_close(erased, (only_swapped - k * layer.U[4] @ layer.V[1]).detach())


def test_an_edited_network_can_be_trained():
    run, x = decomposed("computed", SPD), batch_of("computed")
    edited = run.edited({"fc1": {0: 0.0}})
    edited(x).sum().backward()
    assert {name for name, p in edited.named_parameters() if p.grad is not None} == {
        "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias",
    }  # fmt: skip
    MLP(6, 5, 4).load_state_dict(edited.state_dict())


def test_networks_that_keep_their_activations():
    class Keeps(MLP):
        def forward(self, x):
            self.hidden = torch.relu(self.fc1(x))
            return self.fc2(self.hidden)

    run, x = pdh.fit(Keeps(6, 5, 4), SPD, torch.rand(40, 6), show_progress=False, device="cpu"), batch_of("vectors")
    run.components(x, {"fc1": torch.ones(5, 6)})
    assert run.target.hidden.requires_grad
    assert torch.equal(run.edited()(x), run.target(x))
    with run.masked({}) as network:
        assert torch.equal(network(x), run.target(x))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scales": 3}, TypeError, "scales must map layers to changes, but is 3; {'fc1': {0: 0.0}} works"),
        ({"scales": {"fc3": {0: 1.0}}}, ValueError, "scales names 'fc3', which is not decomposed; 'fc1', 'fc2' work"),
        ({"scales": {"fc1": [0]}}, TypeError, r"scales\['fc1'\] must map components to numbers, but is \[0\]"),
        ({"scales": {"fc1": {6: 0.0}}}, ValueError, "must be a component from 0 to 5, but is 6; 5 works"),
        ({"scales": {"fc1": {-1: 0.0}}}, ValueError, "must be a component from 0 to 5, but is -1"),
        ({"scales": {"fc1": {"a": 0.0}}}, TypeError, "must be the number of a component, but is 'a'; 0 works"),
        ({"scales": {"fc1": {0: "a"}}}, TypeError, r"scales\['fc1'\]\[0\] must be a number, but is 'a'; 0.0 works"),
        ({"scales": {"fc1": {0: math.nan}}}, ValueError, "must be a finite number, but is nan; 0.0 works"),
        ({"swaps": {"fc1": (0, 1)}}, TypeError, r"must be a list of pairs of components, .*; \[\(0, 1\)\] works"),
        ({"swaps": {"fc1": [(0, 0)]}}, ValueError, r"must name every component once, .* but has \(0, 0\)"),
        ({"swaps": {"fc1": [(0, 1), (2, 1)]}}, ValueError, r"but has \(2, 1\)"),
        ({"swaps": {"fc1": [(0, 9)]}}, ValueError, "must be a component from 0 to 5, but is 9"),
        ({"swaps": {"fc1": [(0, 1)]}, "rewrites": {"fc1": {1: torch.ones(5)}}}, ValueError, "none that is rewritten"),
        ({"swaps": {"fc1": [(0, 1)]}, "batch": torch.zeros(4, 6)}, ValueError, "component 0, which reads nothing in"),
        ({"rewrites": {"fc1": {1: torch.ones(4)}}}, ValueError, r"but has \(4,\); torch.zeros\(5\) works"),
        ({"rewrites": {"fc1": {1: torch.full((5,), math.inf)}}}, ValueError, "must be finite"),
        ({"rewrites": {"fc1": {1: 0.0}}}, TypeError, "must be a tensor, but is 0.0"),
        ({"scales": {"fc1": {0: 0.0}}, "batch": torch.zeros(4, 6)}, ValueError, "only swaps need it; batch=None works"),
    ],
)
def test_edits_that_cannot_be(arguments, error, message):
    with pytest.raises(error, match=message):
        decomposed("vectors", SPD).edited(**arguments)


def test_swaps_need_rank_one():
    with pytest.raises(ValueError, match="must swap components of rank one, but those of 'fc1' have rank 2"):
        decomposed("vectors", APD).edited(swaps={"fc1": [(0, 1)]})


# Masks


@ALL
@BOTH
def test_one_mask_for_all_rows(kind, config):
    """Σ_c m_c P_c in place of the weights: as edited weights are, without the rest."""
    run, x = decomposed(kind, config), batch_of(kind)
    masks = {path: torch.rand(6) for path in run.components.layers}
    expected = {path: torch.einsum("c,cij->ij", m, run.components.layers[path].P) for path, m in masks.items()}
    of_uses = {use: masks[layer] for use, (layer, _) in run.components.uses.items()}
    with run.masked(of_uses) as network:
        torch.testing.assert_close(network(x), changed(run, expected, x))
    scales = {path: dict(enumerate(mask.tolist())) for path, mask in masks.items()}
    edited = run.edited(scales)
    for path, module in ((path, edited.get_submodule(path)) for path in masks):
        rest = run.components.targets[path] - run.components.layers[path].weight
        torch.testing.assert_close(module.weight.flatten(), (expected[path] + rest).detach().flatten())
    with run.masked({use: dict(enumerate(m.tolist())) for use, m in of_uses.items()}) as network:
        torch.testing.assert_close(network(x), changed(run, expected, x))


@ALL
@BOTH
def test_a_mask_for_each_row(kind, config):
    run, x = decomposed(kind, config), batch_of(kind)
    rows = run.components.rows(x)
    masks = {use: torch.rand(*shape, 6) for use, shape in rows.items()}
    with run.masked(masks) as network:
        torch.testing.assert_close(network(x), run.components(x, masks).output)
    of_inputs = torch.rand(5, 6)
    with run.masked(of_inputs) as network, torch.no_grad():
        together = network(x)
    for i, mask in enumerate(of_inputs):
        with run.masked(mask) as network:
            torch.testing.assert_close(network(x[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-6)


def test_uses_without_a_mask_keep_their_weights():
    run, x = decomposed("vectors", SPD), batch_of("vectors")
    P = run.components.layers["fc2"].P.detach()
    with run.masked({"fc2": {3: 0.0, 4: 2.0}}) as network:
        torch.testing.assert_close(network(x), changed(run, {"fc2": P.sum(dim=0) - P[3] + P[4]}, x))
    with run.masked({}) as network:
        assert torch.equal(network(x), run.target(x))


def test_gradients_reach_masks():
    run, x = decomposed("sequences", SPD), batch_of("sequences")
    mask, scale = torch.rand(6, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    run.method.optimizer.zero_grad(set_to_none=True)
    with run.masked({"fc1": mask, "fc2": {2: scale}}) as network:
        network(x).square().sum().backward()
    P, Q = (run.components.layers[path].P.detach() for path in ("fc1", "fc2"))
    own, own_scale = mask.detach().clone().requires_grad_(), scale.detach().clone().requires_grad_()
    other = torch.ones(6).index_fill(0, torch.tensor(2), 0.0)
    W = {
        "fc1.weight": torch.einsum("c,cij->ij", own, P),
        "fc2.weight": torch.einsum("c,cij->ij", other, Q) + own_scale * Q[2],
    }
    functional_call(run.target, W, (x,)).square().sum().backward()
    torch.testing.assert_close(mask.grad, own.grad)
    torch.testing.assert_close(scale.grad, own_scale.grad)
    assert all(factor.grad is None for factor in run.components.factors)


def test_the_target_stays_as_it_is_also_after_an_error():
    run, x = decomposed("vectors", SPD), batch_of("vectors")
    before, output = everything_of(run.target), run.target(x)
    networks = []

    def fails():
        with run.masked(torch.zeros(6)) as network:
            networks.append(network)
            assert torch.equal(run.target(x), output)
            run.importances(x)
            assert not torch.equal(network(x), output)
            raise KeyError("anything")

    with pytest.raises(KeyError):
        fails()
    assert_unchanged(before, run.target)
    with pytest.raises(ValueError, match="within their with block only"):
        networks[0](x)


def test_blocks_within_blocks():
    run, x = decomposed("vectors", SPD), batch_of("vectors")
    with run.masked(torch.zeros(6)) as off:
        alone = off(x)
        with run.masked({"fc1": {0: 0.0}}) as other:
            torch.testing.assert_close(off(x), alone)
            assert not torch.allclose(other(x), alone)
            assert torch.equal(run.edited()(x), run.target(x))
        torch.testing.assert_close(off(x), alone)


def test_a_layer_may_be_called_many_times():
    run, x = decomposed("vectors", SPD), batch_of("vectors")
    with run.masked({"fc1": {1: 0.0}}) as network:
        first = network.fc1(x)
        assert all(torch.equal(network.fc1(x), first) for _ in range(3))


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        (3, TypeError, r"masks must map layers to masks, but is 3; {'fc1': torch.ones\(6\)} works"),
        ({"fc3": torch.ones(6)}, ValueError, "masks names 'fc3', which is not decomposed; 'fc1', 'fc2' work"),
        ({"fc1": torch.ones(5)}, ValueError, r"one number for each of 6 components, but has shape \(5,\)"),
        ({"fc1": torch.tensor(1.0)}, ValueError, r"has shape \(\); torch.ones\(6\) works"),
        ({"fc1": [1.0] * 6}, TypeError, "must be a tensor or a mapping from components to numbers"),
        ({"fc1": {6: 0.0}}, ValueError, "must be a component from 0 to 5, but is 6"),
        ({"fc1": {0: math.inf}}, ValueError, r"masks\['fc1'\]\[0\] must be a finite number, but is inf"),
    ],
)
def test_masks_that_cannot_be(masks, error, message):
    with pytest.raises(error, match=message):
        decomposed("vectors", SPD).masked(masks)


def test_masks_of_other_rows():
    run, x = decomposed("vectors", SPD), batch_of("vectors")
    with run.masked({"fc1": torch.ones(4, 6)}) as network, pytest.raises(ValueError, match=r"mask must have shape"):
        network(x)


# Exported components


@ALL
@BOTH
def test_exported_components_add_up(kind, config, tmp_path):
    run = decomposed(kind, config)
    safetensors.torch.save_file(run.export(), tmp_path / "components.safetensors")
    exported = safetensors.torch.load_file(tmp_path / "components.safetensors")
    layers = run.components.layers
    assert set(exported) == {f"{path}.{name}" for path in layers for name in ("U", "V", "weight")}
    for path, layer in layers.items():
        total = np.einsum("cir,crj->ij", exported[f"{path}.U"].numpy(), exported[f"{path}.V"].numpy())
        np.testing.assert_allclose(total, layer.weight.detach(), rtol=1e-4, atol=1e-6)
        weight = run.target.get_submodule(path).weight.detach()
        assert torch.equal(exported[f"{path}.weight"], weight.flatten(1))


def test_exported_components_have_memory_of_their_own():
    run = decomposed("vectors", SPD)
    before = everything_of(run.components)
    for tensor in run.export().values():
        assert not tensor.requires_grad
        tensor.zero_()
    assert_unchanged(before, run.components)


def test_a_network_that_is_one_layer():
    run = pdh.fit(nn.Linear(6, 4), SPD, torch.rand(40, 6), show_progress=False, device="cpu")
    x, P = batch_of("vectors"), run.components.layers[""].P.detach()
    assert set(run.export()) == {"U", "V", "weight"}
    edited = run.edited({"": {0: 0.0}})
    torch.testing.assert_close(edited.weight.detach(), run.target.weight - P[0])
    with run.masked({"": {0: 0.0}}) as network:
        torch.testing.assert_close(network(x), x @ (P.sum(dim=0) - P[0]).T + run.target.bias)


# A language model


@cache
def language_model(config):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 30, "n_positions": 32}
    ends = {"bos_token_id": 0, "eos_token_id": 29, "pad_token_id": 29}
    network = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **ends)).eval()
    layers = ["transformer.h.*", "transformer.wte", "transformer.wpe"]
    data = torch.randint(29, (40, 8))
    run = pdh.fit(
        network, config, data, layers, output=lambda out: out.logits, show_progress=False, device="cpu"
    )  # fmt: skip
    return network, run, data[:3]


@BOTH
def test_a_language_model_is_edited(config):
    network, run, x = language_model(config)
    assert type(run.edited()) is type(network)
    assert torch.equal(pickle.loads(pickle.dumps(run.edited()))(x).logits, network(x).logits)
    path = "transformer.h.0.attn.c_attn"
    P = run.components.layers[path].P.detach()
    edited = run.edited({path: {1: 0.0}, "transformer.wte": {2: 2.0}})
    torch.testing.assert_close(edited.get_submodule(path).weight.detach().T, run.components.targets[path] - P[1])
    assert edited.lm_head.weight is edited.transformer.wte.weight
    more = edited.lm_head.weight - network.lm_head.weight
    torch.testing.assert_close(more.detach(), run.components.layers["transformer.wte"].P[2].detach().T)


@BOTH
def test_a_language_model_writes_under_masks(config):
    """What it generates with a cache, one token after the other, is what the same weights give without one."""
    network, run, x = language_model(config)
    masks = {use: torch.rand(6) for use in run.components.uses if use not in ("transformer.wte", "lm_head")}
    with run.masked(masks) as masked, torch.no_grad():
        logits = masked(x).logits
        written = masked.generate(x[:, :4], attention_mask=torch.ones(3, 4), max_new_tokens=6, do_sample=False)
    plain = run.edited()
    with torch.no_grad():
        for use, mask in masks.items():
            total = torch.einsum("c,cij->ij", mask, run.components.layers[use].P)
            plain.get_submodule(use).weight.copy_(run.components.kinds[use].as_weight(total))
        torch.testing.assert_close(plain(x).logits, logits, rtol=1e-4, atol=1e-5)
        for i in range(4, written.shape[1]):
            finished = (written[:, 4:i] == 29).any(dim=1)
            following = plain(written[:, :i]).logits[:, -1].argmax(dim=-1)
            assert torch.equal(following[~finished], written[:, i][~finished])
    assert torch.equal(network(x).logits, run.target(x).logits)


@BOTH
def test_what_is_active_in_a_language_model(config):
    _, run, x = language_model(config)
    table, g = run.active({"input_ids": x}, 0.2), run.importances(x)
    n = {use: (values.expand(3, -1, -1) > 0.2).sum().item() for use, values in g.items()}
    assert table.layer.value_counts().to_dict() == n
    of_tokens = table[table.layer == "transformer.h.0.mlp.c_fc"]
    for line in of_tokens.itertuples():
        assert line.importance == g[line.layer][line.input, line.position, line.component]
        assert line.token == x[line.input, line.position]


def test_exported_components_of_a_language_model():
    _, run, _ = language_model(SPD)
    path = "transformer.h.0.attn.c_attn"
    exported = run.export()
    assert torch.equal(exported[f"{path}.weight"], run.target.get_submodule(path).weight.T)
    safetensors.torch.save(exported)
