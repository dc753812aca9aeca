"""Layers of every kind: their components add up to them, and under a mask they are what the equations say."""

import pytest
import torch
import torch.nn.functional as F
from kinds import (
    NETWORKS,
    Transformer,
    by_singular_vectors,
    make,
    matrix_of,
    patches,
    sequential,
    tokens,
    with_weights,
)
from networks import SHARP, draw, randomize
from torch import nn

from pd_helpers.core.components import TransposedLinear, decompose
from pd_helpers.core.networks.batches import call

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel"),
]
EXACT = {"rtol": 1e-12, "atol": 1e-12}

CONVOLUTIONS = {
    "1d": (nn.Conv1d, (7,), {}),
    "1d, stride, dilation": (nn.Conv1d, (9,), {"stride": 2, "dilation": 2, "padding": 1}),
    "1d, same": (nn.Conv1d, (7,), {"padding": "same", "dilation": 3, "kernel_size": 2}),
    "1d, valid": (nn.Conv1d, (7,), {"padding": "valid", "bias": False}),
    "1d, reflect": (nn.Conv1d, (7,), {"padding": 2, "padding_mode": "reflect"}),
    "2d": (nn.Conv2d, (5, 4), {}),
    "2d, uneven": (nn.Conv2d, (6, 7), {"kernel_size": (2, 3), "stride": (1, 2), "padding": (2, 0), "dilation": (2, 1)}),
    "2d, same": (nn.Conv2d, (5, 4), {"padding": "same", "kernel_size": (2, 3), "bias": False}),
    "2d, same, replicate": (nn.Conv2d, (5, 4), {"padding": "same", "padding_mode": "replicate"}),
    "2d, circular": (nn.Conv2d, (5, 4), {"padding": 1, "padding_mode": "circular", "stride": 2}),
    "2d, one by one": (nn.Conv2d, (2, 3), {"kernel_size": 1}),
    "3d": (nn.Conv3d, (4, 3, 3), {"padding": 1, "stride": (2, 1, 1), "bias": False}),
    "3d, replicate": (nn.Conv3d, (3, 2, 3), {"padding": "same", "padding_mode": "replicate"}),
}


def convolution(name):
    kind, size, options = CONVOLUTIONS[name]
    return randomize(kind(2, 4, **{"kernel_size": 3} | options)), draw(6, 2, *size)


# All components on


@pytest.mark.parametrize("name", NETWORKS)
def test_components_that_add_up_to_the_weights_give_the_network(name):
    network, layers, x = make(name)
    model = by_singular_vectors(network, layers)
    truth = network(x)
    ones = {use: torch.ones(*rows, model.layers[model.uses[use].layer].C) for use, rows in model.rows(x).items()}
    for masks in (None, {use: one.double() for use, one in ones.items()}, {use: one > 0 for use, one in ones.items()}):
        torch.testing.assert_close(model(x, masks).output, truth, **EXACT)
    torch.testing.assert_close(model.target_forward(x).output, truth, **EXACT)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_the_sum_of_its_components(name, batched):
    network, x = convolution(name)
    x = x if batched else x[0]
    model = by_singular_vectors(nn.Sequential(network), ["0"])
    torch.testing.assert_close(model(x).output, network(x), **EXACT)
    masks = {"0": torch.ones(*model.rows(x)["0"], model.layers["0"].C).double()}
    torch.testing.assert_close(model(x, masks).output, network(x), **EXACT)
    single = by_singular_vectors(nn.Sequential(network.float()), ["0"])
    torch.testing.assert_close(single(x.float()).output, network(x.float()), rtol=1e-5, atol=1e-5)


def test_an_unbatched_vector_is_one_row():
    network = randomize(sequential(3, 4, 2))
    model, x, mask = by_singular_vectors(network, ["0"]), draw(3), draw(3, seed=1)
    torch.testing.assert_close(model(x).output, network(x), **EXACT)
    changed = with_weights(network, model, {"0": mask})
    torch.testing.assert_close(model(x, {"0": mask}).output, changed(x), **SHARP)


# Masks that are the same for all rows


@pytest.mark.parametrize("name", NETWORKS)
def test_a_mask_for_all_rows_is_a_network_of_other_weights(name):
    network, layers, x = make(name)
    model = by_singular_vectors(network, layers)
    masks = {path: draw(layer.C, seed=5 + i) for i, (path, layer) in enumerate(model.layers.items())}
    truth = with_weights(network, model, masks)(x)
    of_uses = {use: masks[layer] for use, (layer, _) in model.uses.items()}
    of_rows = {use: mask.expand(*model.rows(x)[use], -1) for use, mask in of_uses.items()}
    torch.testing.assert_close(model(x, of_rows).output, truth, **SHARP)
    of_inputs = {
        use: mask.expand(6, 1, -1) if use == "positions" else mask.expand(6, -1) for use, mask in of_uses.items()
    }
    torch.testing.assert_close(model(x, of_inputs).output, truth, **SHARP)


@pytest.mark.parametrize("name", ["transformer, tied", "vision", "residual convolutions", "shared in depth"])
def test_a_mask_of_inputs_gives_each_input_weights_of_its_own(name):
    network, layers, x = make(name)
    model = by_singular_vectors(network, layers)
    tables = {path: draw(6, layer.C, seed=5 + i) for i, (path, layer) in enumerate(model.layers.items())}
    masks = {use: tables[layer] for use, (layer, _) in model.uses.items()}
    masks |= {use: mask.unsqueeze(1) for use, mask in masks.items() if use == "positions"}
    output = model(x, masks).output
    for i in range(6):
        of_one = with_weights(network, model, {path: table[i] for path, table in tables.items()})
        torch.testing.assert_close(output[i : i + 1], of_one(x[i : i + 1]), **SHARP)


# Masks of every row


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_mask_of_patches_acts_on_every_patch_by_itself(name):
    network, x = convolution(name)
    model, seen = decompose(nn.Sequential(network), {"0": 3}, rank=2), patches(network, x)
    U, V = model.layers["0"].U, model.layers["0"].V
    torch.testing.assert_close(
        seen @ matrix_of(network).T + (0 if network.bias is None else network.bias),
        network(x).movedim(1, -1),
        **SHARP,
    )
    mask = draw(*seen.shape[:-1], 3, seed=1)
    assert model.rows(x) == {"0": seen.shape[:-1]}
    truth = torch.einsum("...c,cor,cri,...i->...o", mask, U, V, seen)
    truth = truth if network.bias is None else truth + network.bias
    torch.testing.assert_close(model(x, {"0": mask}).output.movedim(1, -1), truth, **SHARP)
    torch.testing.assert_close(model.inner({"0": x})["0"], torch.einsum("cri,...i->...cr", V, seen), **SHARP)


def test_unfolding_agrees_with_torchs_own():
    network, x = convolution("2d, uneven")
    truth = F.unfold(x, network.kernel_size, network.dilation, network.padding, network.stride)  # (n, d_in, places)
    torch.testing.assert_close(patches(network, x).flatten(1, 2), truth.mT)


@pytest.mark.parametrize("shape", [(6,), (6, 5)])
@pytest.mark.parametrize("padding", [None, 0])
def test_a_mask_of_tokens_acts_on_one_hot_vectors(shape, padding):
    network = randomize(nn.Sequential(nn.Embedding(7, 4, padding_idx=padding), nn.Tanh()))
    model, x = decompose(network, {"0": 3}, rank=2), tokens(*shape)
    U, V = model.layers["0"].U, model.layers["0"].V
    mask, one_hot = draw(*shape, 3, seed=1), F.one_hot(x, 7).double()
    truth = torch.einsum("...c,cor,cri,...i->...o", mask, U, V, one_hot)
    output = model(x, {"0": mask}).output
    torch.testing.assert_close(output, truth.tanh(), **SHARP)
    grads = torch.autograd.grad(output.sum(), model.factors)
    torch.testing.assert_close(grads, torch.autograd.grad(truth.tanh().sum(), model.factors), **SHARP)


def test_a_head_tied_to_an_embedding_reads_with_what_the_embedding_writes():
    network, layers, x = make("transformer, tied")
    model = by_singular_vectors(network, layers)
    assert model.uses["tokens"] == ("tokens", False)
    assert model.uses["head"] == ("tokens", True)
    mask = draw(6, 5, 4, seed=1)
    entering = model.target_forward(x).inputs["head"]
    truth = torch.einsum("...c,cor,cri,...o->...i", mask, model.layers["tokens"].U, model.layers["tokens"].V, entering)
    torch.testing.assert_close(model(x, {"head": mask}).output, truth, **SHARP)
    named = by_singular_vectors(network, ["head"])  # the same the other way round
    assert named.uses == {"tokens": ("head", True), "head": ("head", False)}
    of_rows = {"tokens": draw(6, 5, 4, seed=2), "head": mask}
    torch.testing.assert_close(model(x, of_rows).output, named(x, of_rows).output, **SHARP)


def test_every_row_of_a_linear_layer_has_a_mask_of_its_own():
    network, layers, x = make("linear, 4-D")
    model = by_singular_vectors(network, layers)
    flat = x.reshape(-1, 3)
    masks = {use: draw(*rows, model.layers[use].C, seed=3) for use, rows in model.rows(x).items()}
    assert masks["0"].shape == (6, 2, 5, 3)
    truth = model(flat, {use: mask.reshape(60, -1) for use, mask in masks.items()}).output
    torch.testing.assert_close(model(x, masks).output, truth.reshape(6, 2, 5, 2), **SHARP)


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("shape", [(5, 3), (6, 4, 3), (1, 5, 3), (6, 5, 2, 3), (6, 5), (6, 1, 3), (3,)])
def test_masks_of_another_shape_are_refused(shape):
    network, layers, x = make("linear, 3-D")
    model = by_singular_vectors(network, layers)
    with pytest.raises(ValueError, match=r"a mask must have shape \(6, 5, 'C'\)|one value per row and component"):
        model(x, {"0": torch.ones(shape).double()})


# Networks of transformers


def gpt2(transformers):
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=7, n_positions=6)
    layers = ["transformer.wte", "transformer.wpe", "transformer.h.0.attn.c_attn", "transformer.h.0.mlp.c_proj"]
    return transformers.GPT2LMHeadModel(config), layers


def llama(transformers):
    config = transformers.LlamaConfig(
        hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=7, max_position_embeddings=8,
    )  # fmt: skip
    layers = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj"]
    return transformers.LlamaForCausalLM(config), [f"model.layers.0.{path}" for path in layers] + ["lm_head"]


@pytest.mark.parametrize("build", [gpt2, llama])
def test_a_network_of_transformers_is_the_sum_of_its_components(build):
    network, layers = build(pytest.importorskip("transformers"))
    network, layers = randomize(network.eval(), seed=1), list(layers)
    x = {"input_ids": tokens(3, 5), "attention_mask": torch.ones(3, 5, dtype=torch.bool), "use_cache": False}
    x["attention_mask"][1, 3:] = False
    truth = call(network, x).logits
    model = by_singular_vectors(network, layers, output=lambda out: out.logits)
    ones = {
        use: torch.ones(*rows, model.layers[model.uses[use].layer].C).double() for use, rows in model.rows(x).items()
    }
    scale = truth.abs().max()
    for masks in (None, ones):
        assert (model(x, masks).output - truth).abs().max() < 1e-12 * scale
    masks = {path: draw(layer.C, seed=5 + i) for i, (path, layer) in enumerate(model.layers.items())}
    changed = with_weights(network, model, masks)
    of_uses = {use: masks[layer].expand(*model.rows(x)[use], -1) for use, (layer, _) in model.uses.items()}
    torch.testing.assert_close(model(x, of_uses).output, call(changed, x).logits, **SHARP)
    assert ("lm_head" in model.uses) == (build is llama or "transformer.wte" in layers)


# Transposed and tied


@pytest.mark.usefixtures("as_a_user")
def test_a_transposed_layer_is_refused_for_what_has_no_transpose():
    with pytest.raises(TypeError, match="source must be an nn.Linear, but is an Embedding"):
        TransposedLinear(nn.Embedding(3, 2))


def test_one_mask_can_serve_a_tied_network_without_its_transpose_being_named():
    network = randomize(Transformer())
    assert list(decompose(network, {"head": 3}).uses) == ["tokens", "head"]
