"""What networks of others are wrapped in, return, and consist of: it works, or one sentence says what does."""

import re
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from kinds import by_singular_vectors, sequential, tokens
from networks import SHARP, draw, randomize
from torch import Generator, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

import pd_helpers as pdh
from pd_helpers.core.apd import APD, APDConfig
from pd_helpers.core.components import TransposedLinear, decompose
from pd_helpers.core.networks.frozen import frozen
from pd_helpers.core.networks.uses import decomposable, named_by
from pd_helpers.core.spd import SPD, SPDConfig

pytestmark = [
    pytest.mark.usefixtures("one_thread", "as_a_user"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


def trained(method, network, layers, x, output=None, **options):
    """Two steps on one batch: the method, and the losses of the last step."""
    n, rank = len(x), 1 if method is SPD else 2
    model = decompose(network, dict.fromkeys(layers, 3), rank=rank, output=output)
    config = SPDConfig(C=3, d_gate=2, steps=2, batch_size=n, **options)
    if method is APD:
        config = APDConfig(C=3, rank=2, steps=2, batch_size=n, top_k=1.0, **options)
    result = method(model, config, init=Generator(), draw=Generator())
    *_, losses = result.train(lambda n, generator: x)
    return result, losses


def assert_trains(network, layers, x, output=None):
    """Both methods take their steps, with finite losses, and move what they train."""
    for method in (SPD, APD):
        result, losses = trained(method, network, layers, x, output)
        assert all(loss.isfinite() for loss in losses)
        before = decompose(network, dict.fromkeys(layers, 3), rank=1 if method is SPD else 2, output=output).factors
        for mine, initial in zip(result.model.factors, before, strict=True):
            assert mine.dtype == initial.dtype
            assert mine.isfinite().all()
            assert not torch.equal(mine, initial)


# Wrapped and mixed


def compiled_inside():
    network = sequential(3, 4, 2)
    network[0].compile()
    return network


class CompiledForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    @torch.compile
    def forward(self, x):
        return self.layer(x).relu()


def spread_over_devices():
    network = nn.DataParallel(sequential(3, 4, 2))
    network.device_ids = [0, 1]  # as on a machine with two
    return network


WRAPPED = {
    "compiled": (lambda: torch.compile(sequential(3, 4, 2)), ["_orig_mod.0", "_orig_mod.2"]),
    "compiled inside": (compiled_inside, ["0", "2"]),
    "compiled part": (lambda: nn.Sequential(torch.compile(nn.Linear(3, 4)), nn.Linear(4, 2)), ["0._orig_mod", "1"]),
    "compiled forward": (CompiledForward, ["layer"]),
    "spread over devices": (spread_over_devices, ["module.0", "module.2"]),
    "one layer": (lambda: nn.Linear(3, 2), [""]),
    "normalised weights": (lambda: parametrizations.weight_norm(nn.Linear(3, 2)), [""]),
    "in training mode": (lambda: sequential(3, 4, 2, between=lambda: nn.Dropout(0.5)).train(), ["0", "2"]),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_network_is_the_network_inside(name):
    torch.manual_seed(0)
    build, layers = WRAPPED[name]
    network, x = build(), draw(6, 3).float()
    assert_trains(network, layers, x)
    plain = frozen(network)
    for method in (SPD, APD):
        result, _ = trained(method, network, layers, x)
        assert torch.equal(result.model.target_forward(x).output, plain(x))
    assert decomposable(frozen(network)) == layers


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_networks_of_other_types_keep_them(dtype):
    torch.manual_seed(0)
    images = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).to(dtype)
    assert_trains(images, ["0", "3"], draw(6, 2, 4, 4).to(dtype))
    words = nn.Sequential(nn.Embedding(7, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
    assert_trains(words, ["0", "2"], tokens(6, 5))


class InsideAutocast(nn.Module):
    """Computes in bfloat16 what it holds in float32."""

    def __init__(self):
        super().__init__()
        self.words, self.mix, self.last = nn.Embedding(7, 4), nn.Conv1d(4, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.last(self.mix(self.words(x).mT).relu().mT)


def test_autocast_inside_of_the_network():
    torch.manual_seed(0)
    network, x = InsideAutocast(), tokens(6, 5)
    assert_trains(network, ["words", "mix", "last"], x)
    model = by_singular_vectors(network, ["words", "mix", "last"])
    ones = {use: torch.ones(*rows, model.layers[use].C) for use, rows in model.rows(x).items()}
    for masks in (None, ones):
        output = model(x, masks).output
        assert output.dtype == network(x).dtype == torch.bfloat16
        torch.testing.assert_close(output, network(x).detach(), rtol=0.05, atol=0.05)


def test_hooks_of_the_network_itself():
    network, x = randomize(sequential(3, 4, 2)), draw(6, 3)
    network.register_forward_pre_hook(lambda module, args: (args[0] - 1,))
    network.register_forward_hook(lambda module, args, output: 2 * output)
    network[2].register_forward_hook(lambda module, args, output: output.relu())
    model = by_singular_vectors(network, ["0", "2"])
    truth = 2 * F.relu(network[2].weight @ torch.tanh(network[0](x - 1)).mT + network[2].bias.unsqueeze(1)).mT
    torch.testing.assert_close(model(x).output, truth, **SHARP)


def test_convolutions_keep_channels_before_places_in_memory():
    """Torch's backward pass of a strided 1 × 1 convolution writes beyond its memory where they come last."""
    last = draw(6, 4, 4, 1).movedim(-1, 1)
    network = randomize(nn.Sequential(nn.Conv2d(1, 1, 1, stride=2), nn.Conv2d(1, 3, 1, stride=2)))
    model = decompose(network, {"0": 2, "1": 3}, rank=1)
    seen = {}
    model.target[1].register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    output = model(last).output
    assert seen["x"].stride() == torch.empty(6, 1, 2, 2).stride()
    assert output.stride() == torch.empty(6, 3, 1, 1).stride()


class Lora(nn.Module):
    """A layer with a low-rank change beside it."""

    def __init__(self):
        super().__init__()
        self.base, self.A, self.B = nn.Linear(3, 4), nn.Linear(3, 2, bias=False), nn.Linear(2, 4, bias=False)

    def forward(self, x):
        return self.base(x) + self.B(self.A(x))


def test_parts_of_an_adapter_are_layers():
    torch.manual_seed(0)
    network = nn.Sequential(Lora(), nn.Tanh(), nn.Linear(4, 2))
    assert_trains(network, ["0.base", "0.A", "0.B"], draw(6, 3).float())
    with pytest.raises(TypeError, match="layer '0' is a Lora, not a layer that can be decomposed"):
        decompose(network, {"0": 3})


# What cannot be trained


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.first, self.block, self.reentrant = nn.Linear(3, 4), sequential(4, 4, 4), reentrant

    def forward(self, x):
        return checkpoint(self.block, self.first(x), use_reentrant=self.reentrant)


class PartWithoutGradients(nn.Module):
    def __init__(self, context):
        super().__init__()
        self.first, self.last, self.context = nn.Linear(3, 4), nn.Linear(4, 2), context

    def forward(self, x):
        with self.context():
            h = self.first(x)
        return self.last(h)


@pytest.mark.parametrize("method", [SPD, APD])
@pytest.mark.parametrize(
    ("build", "layers", "message"),
    [
        (lambda: Checkpointed(True), ["first", "block.0"], "layer 'block.0' is called through torch.utils.checkpoint"),
        (lambda: Checkpointed(False), ["block.2"], "layer 'block.2' is called through torch.utils.checkpoint"),
        (lambda: PartWithoutGradients(torch.no_grad), ["first", "last"], "calls layer 'first' where gradients are"),
        (lambda: PartWithoutGradients(torch.inference_mode), ["first"], "calls layer 'first' where gradients are"),
    ],
    ids=["checkpoint, reentrant", "checkpoint", "no_grad", "inference_mode"],
)
def test_layers_whose_components_would_get_no_gradients(build, layers, message, method):
    with pytest.raises(ValueError, match=message):
        trained(method, build(), layers, draw(6, 3).float())


def test_a_checkpoint_around_other_layers_is_none_of_our_business():
    assert_trains(Checkpointed(False), ["first"], draw(6, 3).float())


class Calls(nn.Module):
    """Calls one layer so many times, and never the other, whose weight it may share."""

    def __init__(self, n=1, tied=False):
        super().__init__()
        self.idle, self.layer, self.n = nn.Linear(3, 3), nn.Linear(3, 3), n
        if tied:
            self.idle.weight = self.layer.weight

    def forward(self, x):
        for _ in range(self.n):
            x = self.layer(x)
        return x


def test_layers_that_are_not_called_once():
    x = draw(6, 3).float()
    with pytest.raises(ValueError, match="never called 'idle' as a module of the network.*; decompose layers"):
        decompose(Calls(), {"layer": 3, "idle": 3})(x)
    with pytest.raises(ValueError, match="never called 'idle', which shares its weight with 'layer'"):
        decompose(Calls(tied=True), {"layer": 3})(x)
    with pytest.raises(ValueError, match="calls 'layer' twice; give each call a module of its own"):
        decompose(Calls(2), {"layer": 3})(x)
    steps = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    steps[1].weight = steps[0].weight
    assert list(decompose(steps, {"0": 3}).uses) == ["0", "1"]  # what the sentence says works


class Elsewhere(nn.Module):
    """Uses a layer's weight a second time, in a function or as the sentence says."""

    def __init__(self, layer, function, again=None):
        super().__init__()
        self.layer, self.function, self.again = layer, function, again

    def forward(self, x):
        h = self.layer(x)
        return self.function(h, self.layer.weight) if self.again is None else self.again(h)


def like(module, layer):
    module.weight = layer.weight
    return module


@pytest.mark.parametrize(
    ("layer", "function", "again", "x", "message"),
    [
        (nn.Linear(3, 4), lambda h, W: F.linear(h, W.T), TransposedLinear, draw(6, 3).float(), "TransposedLinear"),
        (
            nn.Embedding(7, 4),
            F.linear,
            lambda layer: like(nn.Linear(4, 7, bias=False), layer),
            tokens(6, 5),
            "an nn.Linear self.again without a bias and with self.again.weight = self.layer.weight",
        ),
        (
            nn.Conv1d(3, 3, 1),
            F.conv1d,
            lambda layer: like(nn.Conv1d(3, 3, 1, bias=False), layer),
            draw(6, 3, 5).float(),
            "an nn.Conv1d self.again without a bias",
        ),
    ],
    ids=["linear", "embedding", "convolution"],
)
def test_weights_that_are_used_elsewhere(layer, function, again, x, message):
    with pytest.raises(ValueError, match=f"the weight of layer 'layer' is also used outside of it.*{message}"):
        decompose(Elsewhere(layer, function), {"layer": 3})(x)
    remedied = Elsewhere(layer, function, again(layer))
    assert list(decompose(remedied, {"layer": 3}).uses) == ["layer", "again"]
    torch.testing.assert_close(by_singular_vectors(remedied, ["layer"])(x).output, remedied(x).detach())


# What networks return


class Returns(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.layer, self.answer = nn.Linear(3, 2), answer

    def forward(self, x):
        return self.answer(self.layer(x))


@dataclass
class Answer:
    loss: torch.Tensor | None
    logits: torch.Tensor


@dataclass(slots=True)
class Slots:
    labels: torch.Tensor
    scores: torch.Tensor


Named = namedtuple("Named", "hidden logits")

ANSWERS = {
    "tuple": lambda y: (y, y + 1),
    "labels first": lambda y: (y.argmax(dim=-1), y),
    "a loss first": lambda y: (y.mean(), y),
    "list": lambda y: [None, y],
    "dict": lambda y: {"class scores": y},
    "a name that dictionaries have": lambda y: {"keys": y},
    "numbers as names": lambda y: {0: None, 1: y},
    "logits among others": lambda y: {"hidden": y + 1, "logits": y},
    "nested": lambda y: (None, {"heads": [y]}),
    "namedtuple": lambda y: Named(y + 1, y),
    "dataclass": lambda y: Answer(None, y),
    "slots": lambda y: Slots(y.argmax(dim=-1), y),
    "namespace": lambda y: SimpleNamespace(logits=y, loss=y.mean()),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_the_sentence_says_picks_the_output(name):
    network, x = randomize(Returns(ANSWERS[name])), draw(6, 3)
    with pytest.raises(TypeError, match="and only one tensor can be compared; output=lambda") as error:
        decompose(network, {"layer": 3})(x)
    output = eval(re.search(r"output=(lambda .*) works$", str(error.value))[1])
    wanted = network.layer(x)
    found = decompose(network, {"layer": 3}, output=output).target_forward(x).output
    assert torch.equal(found, wanted) or (name == "tuple" and found.shape == wanted.shape)
    with pytest.raises(TypeError, match="output must pick one tensor from what the network returns, .* output=lambda"):
        decompose(network, {"layer": 3}, output=lambda answer: None)(x)


def test_a_model_output_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=7, n_positions=6, bos_token_id=0, eos_token_id=0
    )
    network, layers = transformers.GPT2LMHeadModel(config), ["transformer.h.0.mlp.c_fc"]
    with pytest.raises(TypeError, match="returns a CausalLMOutput.* output=lambda out: out.logits works"):
        decompose(network, dict.fromkeys(layers, 3))(tokens(6, 5))
    assert_trains(network, layers, tokens(6, 5), output=lambda out: out.logits)
    network.gradient_checkpointing_enable()
    network.train()  # which would checkpoint, and does not in the frozen copy
    result, _ = trained(SPD, network, layers, tokens(6, 5), output=lambda out: out.logits)
    assert result.model.layers[layers[0]].U.grad.any()
    with pytest.raises(ValueError, match="forward-mode derivatives, which torch does not have for something in this"):
        trained(APD, network, layers, tokens(6, 5), output=lambda out: out.logits)  # a hook calls requires_grad_


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda y: None, TypeError, "returns None, .*; a network that returns one with real numbers works"),
        (lambda y: "yes", TypeError, "returns 'yes', .*; a network that returns one with real numbers works"),
        (lambda y: y.argmax(dim=-1), ValueError, "the network returns whole numbers, through which no gradient passes"),
        (lambda y: y.mean(), ValueError, "the network returns a single number for all inputs.*; leave the mean"),
    ],
)
def test_what_cannot_be_compared(answer, error, message):
    with pytest.raises(error, match=message):
        decompose(Returns(answer), {"layer": 3})(draw(6, 3).float())
    with pytest.raises(ValueError, match="output gives a single number for all inputs"):
        decompose(Returns(lambda y: y), {"layer": 3}, output=lambda y: y.mean())(draw(6, 3).float())


# What cannot be decomposed


class Standardised(nn.Conv1d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, weight - weight.mean(), bias)


def quantised():
    from torch.ao.nn import quantized

    return quantized.Linear(3, 3)


def quantised_while_it_runs():
    from torch.ao.quantization import quantize_dynamic

    return quantize_dynamic(nn.Sequential(nn.Linear(3, 3)), {nn.Linear})[0]


OTHERS = {
    "an LSTM, which uses its weights at every step": lambda: nn.LSTM(3, 3),
    "a GRU, which uses its weights at every step": lambda: nn.GRU(3, 3),
    "an RNNCell, which uses its weights at every step": lambda: nn.RNNCell(3, 3),
    "a torch.ao.*Linear, whose weight is quantised; the network before it was": quantised,
    "a torch.ao.*Linear, whose weight is quantised; .*": quantised_while_it_runs,
    "a Conv1d with groups=3, .*; groups=1 works": lambda: nn.Conv1d(3, 3, 1, groups=3),
    "an Embedding with max_norm=2, .*; max_norm=None works": lambda: nn.Embedding(3, 3, max_norm=2),
    "a ConvTranspose2d, not a layer that can be decomposed": lambda: nn.ConvTranspose2d(3, 3, 1),
    "an EmbeddingBag, not a layer that can be decomposed": lambda: nn.EmbeddingBag(3, 3),
    "a Bilinear, not a layer that can be decomposed": lambda: nn.Bilinear(3, 3, 3),
    "a LayerNorm, not a layer that can be decomposed": lambda: nn.LayerNorm(3),
    "a ParameterList, not a layer that can be decomposed": lambda: nn.ParameterList([torch.zeros(3, 3)]),
    "a Standardised with a forward of its own": lambda: Standardised(3, 3, 1),
    "a MultiheadAttention, which packs several matrices into one; pdh.unpack": lambda: nn.MultiheadAttention(4, 2),
    "a TransformerEncoderLayer, which packs .* pdh.unpack": lambda: nn.TransformerEncoderLayer(4, 2, 4),
    "a TransformerEncoder, not a layer": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 4), 1),
    "an Identity, not a layer that can be decomposed": nn.Identity,
}


def suggestion(error):
    """What a sentence says to decompose, or None."""
    found = re.search(r"(\{\".*\": 20\}) works", str(error.value))
    return None if found is None else eval(found[1])


@pytest.mark.parametrize("message", OTHERS)
def test_other_modules_are_refused_by_name_with_what_works(message):
    network = nn.ModuleDict({"part": OTHERS[message](), "layer": nn.Linear(3, 3)})
    with pytest.raises(TypeError, match=f"layer 'part' is {message}") as error:
        decompose(network, {"part": 3})
    if (works := suggestion(error)) is not None:
        assert list(decompose(network, works).layers) == list(works)
    assert ("not a layer" in message) == (works is not None)

    alone = nn.ModuleDict({"part": OTHERS[message]()})
    with pytest.raises(TypeError, match=f"layer 'part' is {message}") as error:
        decompose(alone, {"part": 3})
    if (works := suggestion(error)) is not None:
        decompose(alone, works)
    elif "not a layer" in message:
        assert str(error.value).endswith("a model with nn.Linear layers works")
    found = decomposable(frozen(network))  # layers=None
    assert "layer" in found
    assert "part" not in found
    decompose(network, dict.fromkeys(found, 2))


def test_what_the_sentences_say_about_options_works():
    network = nn.Sequential(nn.Conv1d(3, 3, 1, groups=1), nn.Embedding(3, 3, max_norm=None))
    assert list(decompose(network, {"0": 3, "1": 3}).layers) == ["0", "1"]


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), 2)
        self.last = nn.Linear(4, 2)

    def forward(self, x, padding=None):
        return self.last(self.encoder(x, src_key_padding_mask=padding))


def test_parts_of_torchs_transformers():
    network = Encoder()
    linear = [f"encoder.layers.{i}.linear{j}" for i in range(2) for j in (1, 2)]
    assert decomposable(frozen(network)) == [*linear, "last"]
    assert named_by(frozen(network), "encoder") == linear
    with pytest.raises(TypeError, match="layer 'encoder.layers.0.self_attn.out_proj' is part of an nn.MultiheadAtt.*"):
        decompose(network, {"encoder.layers.0.self_attn.out_proj": 3})
    assert_trains(network, [*linear, "last"], draw(6, 5, 4).float())

    x = {"x": draw(6, 5, 4).float(), "padding": torch.zeros(6, 5, dtype=torch.bool)}
    x["padding"][1:, 3:] = True
    model, network = by_singular_vectors(network, [*linear, "last"]), network.eval()
    truth = network(**x).detach()  # with gradients, torch computes what is padded too
    torch.testing.assert_close(model(x).output, truth, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.target_forward(x).output, truth, rtol=1e-4, atol=1e-5)


def test_apd_has_one_number_of_components():
    model = decompose(sequential(3, 4, 2), {"0": 3, "2": 4})
    with pytest.raises(ValueError, match=r"C must be one number for all, but is \{'0': 3, '2': 4\}; 4 works"):
        APD(model, APDConfig(C=3), init=Generator(), draw=Generator())


def test_tokens_are_no_hidden_activations():
    model = decompose(nn.Sequential(nn.Embedding(7, 4)), {"0": 3})
    with pytest.raises(ValueError, match="hidden_coeff is 1, but no activation enters a decomposed layer; 0 works"):
        APD(model, APDConfig(C=3, hidden_coeff=1.0), init=Generator(), draw=Generator())


@pytest.mark.parametrize("x", [tokens(6, 5).float(), tokens(6, 5) > 3])
def test_tokens_are_whole_numbers(x):
    with pytest.raises(ValueError, match=r"layer '0' takes whole numbers, but got (float32|bool); x.long\(\) works"):
        decompose(nn.Sequential(nn.Embedding(7, 4)), {"0": 3})(x)


# Which layers there are


class Language(nn.Module):
    def __init__(self, tied=True):
        super().__init__()
        self.wte = nn.Embedding(7, 4)
        self.blocks = nn.ModuleList(
            [nn.ModuleDict({"attn": nn.Linear(4, 4), "mlp": sequential(4, 6, 4)}) for _ in range(2)]
        )
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 7, bias=False)
        self.encode = nn.Linear(4, 3)
        self.decode = TransposedLinear(self.encode)
        if tied:
            self.head.weight = self.wte.weight


BLOCKS = [f"blocks.{i}.{path}" for i in range(2) for path in ("attn", "mlp.0", "mlp.2")]


def test_all_layers_are_those_without_embeddings_and_with_tied_ones_once():
    assert decomposable(frozen(Language())) == [*BLOCKS, "encode"]
    assert decomposable(frozen(Language(tied=False))) == [*BLOCKS, "head", "encode"]
    for tied in (True, False):
        network = Language(tied)
        model = decompose(network, dict.fromkeys(decomposable(frozen(network)), 2))
        assert "decode" in model.uses


class Borrows(nn.Module):
    """Holds another layer's weight under a name of its own, where no component can act."""

    def __init__(self, layer):
        super().__init__()
        self.table = layer.weight


def test_layers_that_would_be_refused_are_not_among_them():
    network = sequential(3, 4, 2)
    network.append(Borrows(network[0]))
    assert decomposable(frozen(network)) == ["2"]
    with pytest.raises(TypeError, match="layer '0' shares its weight with '3', a Borrows, where components cannot act"):
        decompose(network, {"0": 3})
    bag = nn.ModuleDict({"bag": nn.EmbeddingBag(7, 4), "head": nn.Linear(4, 7)})
    bag["head"].weight = bag["bag"].weight
    assert decomposable(frozen(bag)) == []


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("blocks.*.mlp", ["blocks.0.mlp.0", "blocks.0.mlp.2", "blocks.1.mlp.0", "blocks.1.mlp.2"]),
        ("blocks.0", ["blocks.0.attn", "blocks.0.mlp.0", "blocks.0.mlp.2"]),
        ("blocks.*.attn", ["blocks.0.attn", "blocks.1.attn"]),
        ("blocks.?.mlp.[02]", ["blocks.0.mlp.0", "blocks.0.mlp.2", "blocks.1.mlp.0", "blocks.1.mlp.2"]),
        ("*", [*BLOCKS, "encode"]),
        ("encode", ["encode"]),
        ("wte", ["wte"]),
        ("head", ["head"]),
        ("decode", ["decode"]),
    ],
)
def test_wildcards_name_layers_at_or_below(pattern, found):
    network = Language()
    assert named_by(frozen(network), pattern) == found
    decompose(network, dict.fromkeys(found, 2))


@pytest.mark.parametrize("pattern", ["block", "blocks.*.nothing", "norm", "w*"])
def test_wildcards_that_name_nothing_are_refused(pattern):
    network = frozen(Language())
    with pytest.raises(ValueError, match=f"layers has '{re.escape(pattern)}', which no layer of the network") as error:
        named_by(network, pattern)
    assert list(decompose(network, suggestion(error)).layers) == ["blocks.0.attn"]


def test_a_network_without_such_layers():
    network = nn.ModuleDict({"weights": nn.ParameterList([torch.zeros(3, 3)])})
    assert decomposable(frozen(network)) == []
    with pytest.raises(ValueError, match="which no layer of the network matches; a model with nn.Linear layers works"):
        named_by(frozen(network), "*")


def test_parametrised_layers_are_among_them():
    network = sequential(3, 4, 2)
    parametrizations.orthogonal(network[0])
    assert decomposable(frozen(network)) == ["0", "2"]
    assert parametrize.is_parametrized(network[0])


def test_an_unpacked_network_is_one_of_layers():
    """What the sentences about packed matrices say works, for each that is named there and for all."""
    torch.manual_seed(0)
    network, x = pdh.unpack(Encoder()), draw(6, 5, 4).float()
    found = decomposable(frozen(network))
    assert [path for path in found if path.startswith("encoder.layers.0.self_attn")] == [
        f"encoder.layers.0.self_attn.{part}" for part in "qkvo"
    ]
    assert_trains(network, found, x)
