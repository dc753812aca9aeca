"""Unpacked networks compute what PyTorch's own modules compute, and call each of their projections."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

import pd_helpers as pdh
from pd_helpers.core.networks import attention, fused

BATCH, QUERIES, KEYS, D, HEADS = 2, 5, 5, 8, 2


def rand(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def randomized(network, dtype=torch.float64):
    """The network with all parameters, biases too, drawn at random, so that no mistake is hidden by zeros."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.to(dtype).parameters():
        parameter.data = (torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2).to(dtype)
    return network


def called(network, function):
    """The paths of the linear layers that are called, and what the function returns."""
    paths, handles = [], []
    for path, module in network.named_modules():
        if isinstance(module, nn.Linear):
            handles.append(module.register_forward_hook(lambda *_, path=path: paths.append(path)))
    try:
        return paths, function(network)
    finally:
        for handle in handles:
            handle.remove()


def state(network):
    """All that a network is: its parameters and what they are, the modes of its modules, and their hooks."""
    tensors = {name: (id(t), t.clone(), t.requires_grad, t.dtype, t._version) for name, t in network.named_parameters()}
    modules = [(path, id(m), type(m), m.training, len(m._forward_hooks)) for path, m in network.named_modules()]
    return tensors, modules


def assert_same_state(before, after):
    assert before[1] == after[1]
    assert before[0].keys() == after[0].keys()
    for name, (identity, values, *rest) in before[0].items():
        assert (identity, *rest) == (after[0][name][0], *after[0][name][2:])
        assert torch.equal(values, after[0][name][1])


def assert_close(a, b, atol=1e-12):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            torch.testing.assert_close(x, y, rtol=0, atol=atol)


# nn.MultiheadAttention


def masks(kind, batch, extra=0):
    """A padding mask and an attention mask of some kind, which leave each query its own key."""
    draw = torch.Generator().manual_seed(5)
    forbidden = torch.rand(QUERIES, KEYS, generator=draw) < 0.4
    forbidden.fill_diagonal_(False)
    several = torch.rand(max(batch, 1) * HEADS, QUERIES, KEYS, generator=draw) < 0.4
    several.diagonal(dim1=1, dim2=2).fill_(False)
    padding = torch.zeros(max(batch, 1), KEYS, dtype=torch.bool)
    padding[-1, -2:] = True
    added = rand(*((batch, KEYS) if batch else (KEYS,)), seed=9)
    return {
        "none": (None, None),
        "bool 2": (None, forbidden),
        "bool 3": (None, several),
        "float 2": (None, rand(QUERIES, KEYS, seed=7)),
        "float 3": (None, rand(max(batch, 1) * HEADS, QUERIES, KEYS, seed=8)),
        "padding": (padding if batch else padding[0], None),
        "both": (added, forbidden),
        "both 3": (added, several),
        "float padding": (added, None),
    }[kind]


MASKS = ["none", "bool 2", "bool 3", "float 2", "float 3", "padding", "float padding", "both", "both 3"]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    options=st.fixed_dictionaries(
        {name: st.booleans() for name in ("bias", "add_bias_kv", "add_zero_attn", "batch_first")}
    ),
    widths=st.sampled_from([{}, {"kdim": 6}, {"vdim": 3}, {"kdim": 6, "vdim": 3}]),
    mask=st.sampled_from(MASKS),
    batched=st.booleans(),
    need_weights=st.booleans(),
    average=st.booleans(),
    training=st.booleans(),
    gradients=st.booleans(),
)
def test_attention_equals_torchs(options, widths, mask, batched, need_weights, average, training, gradients):
    theirs = randomized(nn.MultiheadAttention(D, HEADS, **options, **widths)).train(training)
    ours = pdh.unpack(theirs)
    batch = BATCH if batched else 0
    padding, attn_mask = masks(mask, batch)

    def sequence(n, width, seed):
        shape = (n, width) if not batched else (BATCH, n, width) if options["batch_first"] else (n, BATCH, width)
        return rand(*shape, seed=seed)

    inputs = sequence(QUERIES, D, 1), sequence(KEYS, theirs.kdim, 2), sequence(KEYS, theirs.vdim, 3)
    arguments = {
        "key_padding_mask": padding,
        "attn_mask": attn_mask,
        "need_weights": need_weights,
        "average_attn_weights": average,
    }
    with torch.set_grad_enabled(gradients):
        assert_close(ours(*inputs, **arguments), theirs(*inputs, **arguments))


@pytest.mark.parametrize("batch_first", [False, True])
def test_self_attention_in_evaluation_mode_equals_the_fast_path(batch_first):
    theirs = randomized(nn.MultiheadAttention(D, HEADS, batch_first=batch_first)).eval()
    ours = pdh.unpack(theirs)
    x = rand(BATCH, QUERIES, D) if batch_first else rand(QUERIES, BATCH, D)
    with torch.no_grad():
        paths, result = called(ours, lambda network: network(x, x, x))
        assert_close(result, theirs(x, x, x))
    assert sorted(paths) == ["k", "o", "q", "v"]


@pytest.mark.parametrize("options", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}])
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("n_keys", [3, 5, 7])
def test_is_causal_is_taken_as_torch_takes_it(options, need_weights, padded, n_keys):
    """Where PyTorch uses the hint in place of the mask, even if the mask says something else."""
    theirs = randomized(nn.MultiheadAttention(D, HEADS, **options))
    x, y = rand(QUERIES, BATCH, D), rand(n_keys, BATCH, D, seed=1)
    padding = None
    if padded:
        padding = torch.zeros(BATCH, n_keys, dtype=torch.bool)
        padding[1, -1] = True
    mask = rand(QUERIES, n_keys, seed=3)
    arguments = {"attn_mask": mask, "is_causal": True, "need_weights": need_weights, "key_padding_mask": padding}
    assert_close(pdh.unpack(theirs)(x, y, y, **arguments), theirs(x, y, y, **arguments))


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_query_that_may_attend_to_nothing(need_weights):
    theirs = randomized(nn.MultiheadAttention(D, HEADS, batch_first=True))
    ours = pdh.unpack(theirs)
    x = rand(BATCH, QUERIES, D)
    padding = torch.tensor([[False] * KEYS, [True] * KEYS])
    arguments = {"key_padding_mask": padding, "need_weights": need_weights}
    result, expected = ours(x, x, x, **arguments), theirs(x, x, x, **arguments)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12, equal_nan=True)
    if not need_weights:
        result[0].sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in ours.parameters())


def test_dropout_in_training_mode_only():
    """From the same random state, PyTorch's module drops the same weights."""
    theirs = randomized(nn.MultiheadAttention(D, HEADS, dropout=0.5))
    ours = pdh.unpack(theirs)
    x = rand(QUERIES, BATCH, D)
    results = []
    for network in (ours, theirs):
        torch.manual_seed(3)
        results.append(network(x, x, x, average_attn_weights=False))
    assert_close(*results)
    assert (results[0][1] == 0).any()
    ours.eval(), theirs.eval()
    assert_close(ours(x, x, x), theirs(x, x, x))


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02), (torch.float16, 2e-3)])
def test_types_are_kept(dtype, atol):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4, dtype=dtype)
    ours = pdh.unpack(theirs)
    assert {parameter.dtype for parameter in ours.parameters()} == {dtype}
    x = rand(QUERIES, BATCH, 16, dtype=dtype)
    for need_weights in (False, True):
        assert_close(ours(x, x, x, need_weights=need_weights), theirs(x, x, x, need_weights=need_weights), atol)


def test_autocast():
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4)
    x = rand(QUERIES, BATCH, 16, dtype=torch.float32)
    mask = nn.Transformer.generate_square_subsequent_mask(QUERIES)
    with torch.autocast("cpu", torch.bfloat16):
        ours, expected = (network(x, x, x, attn_mask=mask) for network in (pdh.unpack(theirs), theirs))
    assert ours[0].dtype == expected[0].dtype
    assert_close(ours, [expected[0], expected[1].to(ours[1].dtype)], 0.02)


@pytest.mark.parametrize("options", [{}, {"kdim": 6, "vdim": 3}, {"add_bias_kv": True}])
def test_gradients_are_torchs(options):
    theirs = randomized(nn.MultiheadAttention(D, HEADS, **options))
    ours = pdh.unpack(theirs)
    inputs = rand(QUERIES, BATCH, D), rand(KEYS, BATCH, theirs.kdim), rand(KEYS, BATCH, theirs.vdim)
    for network in (theirs, ours):
        output, weights = network(*inputs)
        (output.square().sum() + weights.square().sum()).backward()
    if theirs.in_proj_weight is None:
        packed = [theirs.q_proj_weight.grad, theirs.k_proj_weight.grad, theirs.v_proj_weight.grad]
    else:
        packed = theirs.in_proj_weight.grad.chunk(3)
    layers = ours.q, ours.k, ours.v
    assert_close([layer.weight.grad for layer in layers], packed, 1e-11)
    assert_close([layer.bias.grad for layer in layers], theirs.in_proj_bias.grad.chunk(3), 1e-11)
    assert_close(
        [ours.o.weight.grad, ours.o.bias.grad], [theirs.out_proj.weight.grad, theirs.out_proj.bias.grad], 1e-11
    )
    if "add_bias_kv" in options:
        assert_close([ours.bias_k.grad, ours.bias_v.grad], [theirs.bias_k.grad, theirs.bias_v.grad], 1e-11)


@pytest.mark.parametrize("need_weights", [False, True])
def test_forward_derivatives(need_weights):
    """The derivative along a direction is what finite differences say, for inputs and for a layer's weight."""
    ours = pdh.unpack(randomized(nn.MultiheadAttention(D, HEADS, batch_first=True)).eval())
    x, direction = rand(BATCH, QUERIES, D), rand(BATCH, QUERIES, D, seed=4)
    mask = nn.Transformer.generate_square_subsequent_mask(QUERIES, dtype=torch.float64)

    def output(x, weight):
        values = {"q.weight": weight}
        arguments = {"attn_mask": mask, "need_weights": need_weights}
        return torch.func.functional_call(ours, values, (x, x, x), arguments)[0]

    point, along = (x, ours.q.weight.detach()), (direction, rand(D, D, seed=6))
    _, derivative = torch.func.jvp(output, point, along)
    step = 1e-6
    ahead, behind = (output(*(p + s * a for p, a in zip(point, along, strict=True))) for s in (step, -step))
    torch.testing.assert_close(derivative, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-6)


def test_bad_calls_of_attention(as_a_user):
    ours = pdh.unpack(nn.MultiheadAttention(D, HEADS))
    x = torch.rand(QUERIES, BATCH, D)
    for message, arguments, keywords in [
        ("key_padding_mask must have shape (2, 5), but has (5, 2)", (x, x, x), {"key_padding_mask": torch.zeros(5, 2)}),
        ("attn_mask must have shape (5, 5) or (4, 5, 5), but has (1, 5)", (x, x, x), {"attn_mask": torch.zeros(1, 5)}),
        ("attn_mask must be Boolean or floating point", (x, x, x), {"attn_mask": torch.zeros(5, 5, dtype=torch.int)}),
        ("is_causal=False works", (x, x, x), {"is_causal": True}),
        ("shapes (length, batch, d) with one batch", (x, x[:, :1], x[:, :1]), {}),
        ("shapes (length, batch, d) with one batch", (x, x, x[:3]), {}),
        ("shapes (length, batch, d) with one batch", (x, x[:, 0], x[:, 0]), {}),
        ("shapes (length, batch, d) with one batch", (x[None], x[None], x[None]), {}),
    ]:
        with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is checked below)
            ours(*arguments, **keywords)
        assert message in str(error.value)


def test_nested_tensors_are_refused(as_a_user):
    ours = pdh.unpack(nn.MultiheadAttention(D, HEADS, batch_first=True))
    x = torch.nested.nested_tensor([torch.rand(3, D), torch.rand(2, D)])
    with pytest.raises(ValueError, match="must not be nested tensors"):
        ours(x, x, x)


# PyTorch's Transformer layers

LAYERS = ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "linear1", "linear2"]
CAUSAL = nn.Transformer.generate_square_subsequent_mask(QUERIES, dtype=torch.float64)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"bias": False}, {"activation": F.silu}])
@pytest.mark.parametrize("batch_first", [False, True])
def test_encoder_layer(training, gradients, options, batch_first):
    theirs = randomized(nn.TransformerEncoderLayer(D, HEADS, 12, dropout=0.0, batch_first=batch_first, **options))
    theirs.train(training)
    ours = pdh.unpack(theirs)
    x = rand(*((BATCH, QUERIES) if batch_first else (QUERIES, BATCH)), D)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    for arguments in ({}, {"src_mask": CAUSAL, "is_causal": True}, {"src_key_padding_mask": padding}):
        with torch.set_grad_enabled(gradients):
            paths, output = called(ours, lambda network, arguments=arguments: network(x, **arguments))
            expected = theirs(x, **arguments)
        assert sorted(paths) == sorted(LAYERS)
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_encoder(training, gradients, padded):
    """The original may compute with nested tensors, and then gives zeros at padded positions; the rest is equal."""
    layer = nn.TransformerEncoderLayer(D, HEADS, 12, dropout=0.0, batch_first=True)
    theirs = randomized(nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(D))).train(training)
    ours = pdh.unpack(theirs)
    x = rand(BATCH, QUERIES, D)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2]) if padded else None
    with torch.set_grad_enabled(gradients):
        paths, output = called(ours, lambda network: network(x, src_key_padding_mask=padding))
        expected = theirs(x, src_key_padding_mask=padding)
    assert sorted(paths) == sorted(f"layers.{i}.{path}" for i in (0, 1) for path in LAYERS)
    real = slice(None) if padding is None else ~padding
    torch.testing.assert_close(output[real], expected[real], rtol=0, atol=1e-11)
    assert theirs.use_nested_tensor
    with torch.no_grad():
        torch.testing.assert_close(ours(x, CAUSAL, is_causal=True), theirs(x, CAUSAL, is_causal=True))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_decoder_and_whole_transformer(training, batch_first):
    shape = (BATCH, QUERIES) if batch_first else (QUERIES, BATCH)
    x, memory = rand(*shape, D), rand(*shape, D, seed=1)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    decoder_layer = nn.TransformerDecoderLayer(D, HEADS, 12, dropout=0.0, batch_first=batch_first)
    for network in (
        decoder_layer,
        nn.TransformerDecoder(decoder_layer, 2),
        nn.Transformer(D, HEADS, 1, 2, 12, dropout=0.0, batch_first=batch_first),
    ):
        theirs = randomized(network).train(training)
        ours = pdh.unpack(theirs)
        with torch.no_grad():
            swapped = isinstance(network, nn.Transformer)
            arguments = {"tgt_mask": CAUSAL, "tgt_is_causal": True, "memory_key_padding_mask": padding}
            inputs = (memory, x) if swapped else (x, memory)
            paths, output = called(ours, lambda network: network(*inputs, **arguments))  # noqa: B023
            torch.testing.assert_close(output, theirs(*inputs, **arguments), rtol=0, atol=1e-11)
        assert sorted(paths) == sorted(path for path, module in ours.named_modules() if isinstance(module, nn.Linear))
        assert sum("multihead_attn." in path for path in paths) == 4 * (1 if network is decoder_layer else 2)


# Fused projections


class Block(nn.Module):
    """Attention as many write it, with one matrix for queries, keys and values."""

    def __init__(self, name="qkv", n_kv=D, bias=True):
        super().__init__()
        self.name, self.n_kv = name, n_kv
        self.add_module(name, nn.Linear(D, D + 2 * n_kv, bias=bias))
        self.proj = nn.Linear(D, D)

    def forward(self, x):
        q, k, v = getattr(self, self.name)(x).split((D, self.n_kv, self.n_kv), dim=-1)
        return self.proj((q[..., : self.n_kv] @ k.mT).softmax(-1) @ v @ torch.ones(self.n_kv, D, dtype=x.dtype))


@pytest.mark.parametrize("name", ["qkv", "qkv_proj", "in_proj", "Wqkv", "c_attn"])
@pytest.mark.parametrize("bias", [False, True])
def test_projections_that_are_known_by_name(name, bias):
    theirs = randomized(nn.Sequential(Block(name, bias=bias), Block(name, bias=bias)))
    ours = pdh.unpack(theirs)
    x = rand(3, QUERIES, D)
    paths, output = called(ours, lambda network: network(x))
    torch.testing.assert_close(output, theirs(x), rtol=0, atol=1e-12)
    assert paths == [f"{i}.{path}" for i in (0, 1) for path in (f"{name}.q", f"{name}.k", f"{name}.v", "proj")]
    assert torch.equal(getattr(ours[1], name).k.weight, getattr(theirs[1], name).weight[D : 2 * D])


def test_gate_and_up():
    theirs = randomized(nn.ModuleDict({"gate_up_proj": nn.Linear(D, 20)}))
    ours = pdh.unpack(theirs)
    assert ours["gate_up_proj"].gate.weight.shape == ours["gate_up_proj"].up.weight.shape == (10, D)
    torch.testing.assert_close(ours["gate_up_proj"](rand(3, D)), theirs["gate_up_proj"](rand(3, D)))


def test_projections_that_are_named():
    theirs = randomized(nn.Sequential(Block("mix", n_kv=2), Block("mix", n_kv=2)))
    x = rand(3, QUERIES, D)
    for splits, parts in [
        ({"*.mix": {"q": D, "k": 2, "v": 2}}, ["q", "k", "v"]),
        ({"?.mix": 3}, ["q", "k", "v"]),
        ({"*.mix": 4}, ["part_0", "part_1", "part_2", "part_3"]),
        ({"0.mix": 2, "1.mix": 2}, ["part_0", "part_1"]),
    ]:
        ours = pdh.unpack(theirs, splits)
        assert [name for name, _ in ours[0].mix.named_children()] == parts
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)
    sizes = [tuple(part.weight.shape) for part in pdh.unpack(theirs, {"1.mix": {"q": D, "kv": 4}})[1].mix.children()]
    assert sizes == [(D, D), (4, D)]


def test_splits_name_all_that_is_split():
    theirs = nn.ModuleDict({"qkv": nn.Linear(4, 12), "other": nn.Linear(4, 6), "attn": nn.MultiheadAttention(4, 1)})
    kinds = lambda network: {name: type(module).__name__ for name, module in network.named_children()}  # noqa: E731
    assert kinds(pdh.unpack(theirs)) == {"qkv": "Fused", "other": "Linear", "attn": "Attention"}
    assert kinds(pdh.unpack(theirs, {})) == {"qkv": "Linear", "other": "Linear", "attn": "Attention"}
    assert kinds(pdh.unpack(theirs, {"oth*": 2})) == {"qkv": "Linear", "other": "Fused", "attn": "Attention"}


def test_a_weight_that_other_code_reads():
    """As torchvision's Swin does, which calls no layer for its queries, keys and values."""
    theirs = randomized(nn.Sequential(nn.Linear(4, 12)))
    ours = pdh.unpack(theirs, {"0": 3})
    x = rand(2, 4)
    torch.testing.assert_close(F.linear(x, ours[0].weight, ours[0].bias), theirs(x))
    assert pdh.unpack(nn.Sequential(nn.Linear(4, 12, bias=False)), {"0": 3})[0].bias is None


def test_the_root_itself():
    theirs = randomized(nn.Linear(4, 12))
    ours = pdh.unpack(theirs, {"*": 3})
    torch.testing.assert_close(ours(rand(2, 4)), theirs(rand(2, 4)))
    assert isinstance(ours.q, nn.Linear)


# Networks of transformers


def test_gpt2():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=20, n_positions=16)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    before = state(theirs)
    ours = pdh.unpack(theirs)
    assert_same_state(before, state(theirs))
    tokens = torch.randint(20, (3, 7), generator=torch.Generator().manual_seed(0))
    padding = torch.ones(3, 7, dtype=torch.long)
    padding[1, 4:] = 0
    for arguments in ({}, {"attention_mask": padding}, {"labels": tokens}):
        with torch.no_grad():
            paths, result = called(ours, lambda network, arguments=arguments: network(tokens, **arguments))
            torch.testing.assert_close(result.logits, theirs(tokens, **arguments).logits, rtol=0, atol=1e-6)
        for layer, part in itertools.product(range(2), "qkv"):
            assert f"transformer.h.{layer}.attn.c_attn.{part}" in paths
    assert ours.lm_head.weight is ours.transformer.wte.weight
    W = theirs.transformer.h[1].attn.c_attn.weight  # (d_in, d_out)
    assert torch.equal(ours.transformer.h[1].attn.c_attn.v.weight, W[:, 16:].T)
    assert torch.equal(ours.transformer.h[1].attn.c_attn.weight, W)
    mlp = pdh.unpack(theirs, {"*.c_fc": {"left": 20, "right": 12}})
    torch.testing.assert_close(mlp(tokens).logits, theirs(tokens).logits, rtol=0, atol=1e-6)


def test_phi3():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Phi3Config(**sizes, num_key_value_heads=1, vocab_size=20, pad_token_id=0)
    theirs = transformers.Phi3ForCausalLM(config).eval()
    tokens = torch.randint(20, (3, 7), generator=torch.Generator().manual_seed(0))
    for splits in (None, {"*.gate_up_proj": 2, "*.qkv_proj": {"q": 8, "k": 4, "v": 4}}):
        ours = pdh.unpack(theirs, splits)
        torch.testing.assert_close(ours(tokens).logits, theirs(tokens).logits, rtol=0, atol=1e-6)
    assert isinstance(ours.model.layers[0].self_attn.qkv_proj.k, nn.Linear)


def test_heads_that_alternate_are_not_split_by_themselves():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    neox = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**sizes, vocab_size=20))
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 20}
    bigcode = transformers.GPTBigCodeForCausalLM(transformers.GPTBigCodeConfig(**sizes, multi_query=False))
    codegen = transformers.CodeGenForCausalLM(transformers.CodeGenConfig(**sizes | {"n_head": 4, "n_embd": 16}))
    for theirs in (neox, bigcode, codegen):
        with pytest.raises(ValueError, match="nothing to unpack"):
            pdh.unpack(theirs)
    tokens = torch.randint(20, (3, 7))
    neox.eval()
    ours = pdh.unpack(neox, {"*.query_key_value": 3})
    torch.testing.assert_close(ours(tokens).logits, neox(tokens).logits, rtol=0, atol=1e-6)


# What becomes of the network


def test_the_network_is_left_alone():
    theirs = nn.Sequential(nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 2, 6), nn.Dropout(), nn.Linear(4, 4))
    theirs[0].register_forward_hook(lambda *_: None)
    theirs[1].self_attn.eval()
    theirs[3].weight.requires_grad_(False)
    before, random = state(theirs), torch.get_rng_state()
    ours = pdh.unpack(theirs)
    assert_same_state(before, state(theirs))
    assert torch.equal(random, torch.get_rng_state())
    assert type(theirs[1].self_attn) is nn.MultiheadAttention
    storages = {parameter.untyped_storage().data_ptr() for parameter in theirs.parameters()}
    assert storages.isdisjoint(parameter.untyped_storage().data_ptr() for parameter in ours.parameters())
    assert all(type(parameter) is nn.Parameter and parameter.is_leaf for parameter in ours.parameters())
    assert sum(parameter.numel() for parameter in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert {m.training for m in ours[1].self_attn.modules()} == {False}
    assert ours.training
    assert ours[1].training
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
    assert_same_state(before, state(theirs))


def test_what_is_learned_stays_learned():
    theirs = nn.ModuleList([nn.MultiheadAttention(4, 2, add_bias_kv=True), nn.Linear(4, 12)])
    theirs[0].in_proj_weight.requires_grad_(False)
    theirs[0].out_proj.bias.requires_grad_(False)
    theirs[0].bias_k.requires_grad_(False)
    theirs[1].bias.requires_grad_(False)
    ours = pdh.unpack(theirs, {"1": 3})
    learned = {name: parameter.requires_grad for name, parameter in ours.named_parameters()}
    fixed = {"0.q.weight", "0.k.weight", "0.v.weight", "0.o.bias", "0.bias_k", "1.q.bias", "1.k.bias", "1.v.bias"}
    assert {name for name, is_learned in learned.items() if not is_learned} == fixed


def test_modules_in_several_places_stay_one():
    heads, linear = nn.MultiheadAttention(4, 2), nn.Linear(4, 12)
    theirs = nn.ModuleDict({"a": nn.ModuleList([heads, linear]), "b": heads, "c": linear})
    ours = pdh.unpack(theirs, {"c": 3})
    assert ours["a"][0] is ours["b"]
    assert ours["a"][1] is ours["c"]
    assert isinstance(ours["a"][1].q, nn.Linear)


def test_an_output_projection_may_be_shared():
    theirs = nn.ModuleDict({"attn": nn.MultiheadAttention(4, 2), "head": nn.Linear(4, 4)})
    theirs["head"].weight = theirs["attn"].out_proj.weight
    ours = pdh.unpack(theirs)
    assert ours["head"].weight is ours["attn"].o.weight


def test_devices_without_values():
    ours = pdh.unpack(nn.TransformerEncoderLayer(4, 2, 6, device="meta"))
    assert {parameter.device.type for parameter in ours.parameters()} == {"meta"}
    assert ours.self_attn.q.weight.shape == (4, 4)


def test_the_copy_can_be_copied_and_stored():
    ours = pdh.unpack(randomized(nn.TransformerEncoderLayer(D, HEADS, 12)).eval())
    x = rand(QUERIES, BATCH, D)
    again = copy.deepcopy(ours)
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again(x), ours(x))
    with pytest.raises(ValueError, match="nothing to unpack"):
        pdh.unpack(ours)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_weights_that_are_not_finite(poison):
    theirs = nn.MultiheadAttention(4, 2)
    theirs.in_proj_weight.data[0, 0] = poison
    assert pdh.unpack(theirs).q.weight[0, 0].isfinite().logical_not()


def test_a_copy_that_differs_is_not_returned(monkeypatch):
    """If queries and keys came out swapped, the comparison with the original would notice."""

    def swapped(packed, widths, learned=True):
        first, second, *rest = attention_pieces(packed, widths, learned)
        return [second, first, *rest]

    attention_pieces = attention.pieces
    for module, network in (
        (attention, nn.MultiheadAttention(4, 2)),
        (fused, nn.ModuleDict({"qkv": nn.Linear(4, 12)})),
    ):
        monkeypatch.setattr(module, "pieces", swapped)
        with pytest.raises(AssertionError, match="changed what it computes"):
            pdh.unpack(randomized(network))


# Refusals


class OwnForward(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


class OwnAttention(nn.MultiheadAttention):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


def test_nothing_to_unpack():
    for network in (nn.Sequential(nn.Linear(3, 4)), nn.LSTM(3, 4), nn.GRUCell(3, 4), OwnAttention(4, 2)):
        with pytest.raises(ValueError, match="nothing to unpack: .* pdh.fit takes the network as it is"):
            pdh.unpack(network)


def test_layers_that_stay_as_they_are():
    theirs = nn.ModuleDict({"qkv": OwnForward(4, 12), "lstm": nn.LSTM(3, 4), "attn": nn.MultiheadAttention(4, 2)})
    theirs["mine"] = OwnAttention(4, 2)
    theirs["packed"] = nn.ModuleDict({"qkv": nn.Linear(4, 8)})
    ours = pdh.unpack(theirs)
    same = [type(module) for name, module in ours.items() if name != "attn"]
    assert same == [OwnForward, nn.LSTM, OwnAttention, nn.ModuleDict]
    assert type(ours["packed"]["qkv"]) is nn.Linear
    theirs["attn"].forward = lambda *args: None
    with pytest.raises(ValueError, match="nothing to unpack"):
        pdh.unpack(theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net["attn"].register_forward_hook(lambda *_: None), "layer 'attn' has hooks"),
        (lambda net: net["attn"].out_proj.register_forward_pre_hook(lambda *_: None), "layer 'attn' has hooks"),
        (lambda net: net["qkv"].register_full_backward_hook(lambda *_: None), "layer 'qkv' has hooks"),
        (lambda net: net["qkv"].weight.register_hook(lambda grad: grad), "layer 'qkv' has hooks"),
        (lambda net: parametrizations.weight_norm(net["attn"], "in_proj_weight"), "'attn' has weights that are comp"),
        (lambda net: parametrizations.orthogonal(net["attn"].out_proj), "'attn' has weights that are computed"),
        (lambda net: parametrizations.spectral_norm(net["qkv"]), "'qkv' has weights that are computed"),
        (lambda net: prune.random_unstructured(net["qkv"], "weight", 0.5), "'qkv' has weights that are computed"),
        (
            lambda net: setattr(net["other"], "in_proj_weight", net["attn"].in_proj_weight),
            "'attn.in_proj_weight' and 'other.in_proj_weight' are one parameter",
        ),
        (lambda net: setattr(net["lin"], "weight", net["qkv"].weight), "'qkv.weight' and 'lin.weight' are one"),
        (lambda net: net.update({"lazy": nn.LazyLinear(3)}), "parameters without values; call it on one batch first"),
    ],
)
def test_packed_layers_that_are_refused(change, message):
    layers = {"attn": nn.MultiheadAttention(4, 2), "other": nn.MultiheadAttention(4, 2)}
    network = nn.ModuleDict({**layers, "qkv": nn.Linear(4, 12), "lin": nn.Linear(4, 12)})
    change(network)
    with pytest.raises(ValueError, match=message):
        pdh.unpack(network)


def test_splits_that_are_refused(as_a_user):
    theirs = nn.ModuleDict({"a": nn.Linear(4, 10), "own": OwnForward(4, 12), "attn": nn.MultiheadAttention(4, 2)})
    for splits, message in [
        ({"b": 2}, "splits['b'] must name an nn.Linear or a Conv1D, but names no module; {\"a\": 2} names one"),
        ({"attn": 3}, "names only 'attn', a MultiheadAttention"),
        ({"*.out_proj": 2}, "names only 'attn.out_proj', a NonDynamicallyQuantizableLinear"),
        ({"a": 3}, "splits['a'] must divide the 10 outputs of 'a', but is 3; 2 works"),
        ({"a": 4}, "but is 4; 2 works"),
        ({"a": {"q": 4, "k": 4}}, "must add up to the 10 outputs of 'a', but adds up to 8"),
        ({"a": {"q": 4, "forward": 6}}, "but has 'forward'; 'q' works"),
        ({"a": {"q": 4, "1": 6}}, "but has '1'"),
        ({"a": {"weight": 4, "q": 6}}, "but has 'weight'"),
        ({"a": {"q": 10}}, "the outputs of two parts or more"),
        ({"a": {"q": 0, "k": 10}}, "the outputs of two parts or more"),
        ({"a": 1}, "a number of parts from 2 on"),
        ({"a": True}, "a number of parts from 2 on"),
        ({"a": 2, "?": 2}, "splits['a'] and splits['?'] both name 'a'"),
        ({"own": 2}, "names 'own', a OwnForward with a forward of its own"),
    ]:
        with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is checked below)
            pdh.unpack(theirs, splits)
        assert message in str(error.value)
    for splits in ({"a": "q"}, {"a": 2.0}, ["a"], {1: 2}, "a"):
        with pytest.raises(TypeError, match="splits"):
            pdh.unpack(theirs, splits)


def test_networks_that_are_refused(as_a_user):
    with pytest.raises(TypeError, match="network must be an nn.Module, but is 'gpt2'"):
        pdh.unpack("gpt2")
    compiled = torch.compile(nn.MultiheadAttention(4, 2))
    with pytest.raises(TypeError, match="network is compiled by torch.compile"):
        pdh.unpack(compiled)
    with pytest.raises(TypeError, match="layer '0' is compiled by torch.compile"):
        pdh.unpack(nn.Sequential(compiled))
    with pytest.raises(TypeError, match="compiled by torch.jit"):
        pdh.unpack(torch.jit.trace(nn.Linear(4, 12), torch.rand(1, 4)))
    network = nn.Sequential(nn.MultiheadAttention(4, 2))
    network.seen = network[0].in_proj_weight * 2
    with pytest.raises(TypeError, match="network must be one that copy.deepcopy copies"):
        pdh.unpack(network)
