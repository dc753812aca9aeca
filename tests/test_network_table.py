"""The README's table of networks: each row is tried here, and does what it says there."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pd_helpers as pdh

pytestmark = pytest.mark.usefixtures("one_thread", "quick_evaluation", "as_a_user")

README = (Path(__file__).parents[1] / "README.md").read_text()
CONFIG = pdh.SPDConfig(C=3, d_gate=2, steps=2, batch_size=8)
VECTORS, TOKENS, IMAGES = torch.rand(40, 6), torch.randint(10, (40, 5)), torch.rand(40, 1, 8, 8)
SEQUENCES = torch.rand(40, 5, 8)


class Case(NamedTuple):
    """A network, its data, and what else `fit` is given."""

    network: Callable[[], nn.Module]
    data: Any
    arguments: dict[str, Any] = {}  # noqa: RUF012


def mlp(**kw):
    return nn.Sequential(nn.Linear(6, 5, **kw), nn.ReLU(), nn.Linear(5, 4, **kw))


class Of(nn.Module):
    """A network of parts whose forward is given."""

    def __init__(self, compute, **parts):
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        return self.compute(self, x)


class Two(nn.Module):
    """A network of two inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, left, right):
        return torch.relu(self.a(left)) * self.b(right)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 4, bias=False)
        self.unembed = pdh.TransposedLinear(self.embed)

    def forward(self, x):
        return self.unembed(torch.relu(self.embed(x)))


class TiedHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(torch.relu(self.embed(tokens)))


class Lora(nn.Module):
    def __init__(self):
        super().__init__()
        self.base, self.down, self.up = nn.Linear(6, 4), nn.Linear(6, 2, bias=False), nn.Linear(2, 4, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Fused(nn.Module):
    """Causal attention of one head, with its projections in one matrix."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))


def hugging_face(name):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 10, "bos_token_id": 0, "eos_token_id": 0}
    if name == "gpt2":
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, n_positions=8, **sizes)
        )
    own = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.LlamaConfig(num_key_value_heads=1, max_position_embeddings=8, **own, **sizes)
    return transformers.LlamaForCausalLM(config)


def conv_net():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2), nn.ReLU(), nn.Conv2d(3, 2, 2, padding=1), nn.Flatten(), nn.Linear(32, 4)
    )


def with_dropout():
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 4)).train()


def encoder():
    return nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, batch_first=True)


LOGITS = {"output": lambda out: out.logits[:, -1]}

WORKS: dict[str, Case] = {
    "vectors through `nn.Linear` layers": Case(mlp, VECTORS),
    "sequences, or rows of any shape": Case(
        lambda: nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 4)), SEQUENCES
    ),
    "one matrix in two places": Case(Tied, VECTORS, {"layers": ["embed"]}),
    "`nn.Embedding`, its weight shared with the head": Case(TiedHead, TOKENS, {"layers": ["embed"]}),
    "`nn.Conv1d`, `nn.Conv2d`, `nn.Conv3d`": Case(conv_net, IMAGES),
    "a GPT-2 of transformers": Case(lambda: hugging_face("gpt2"), TOKENS, LOGITS),
    "a Llama of transformers": Case(lambda: hugging_face("llama"), TOKENS, LOGITS),
    "`nn.MultiheadAttention`, `nn.TransformerEncoderLayer`": Case(lambda: pdh.unpack(encoder()), SEQUENCES),
    "query, key and value in one matrix": Case(lambda: pdh.unpack(Fused()), SEQUENCES),
    "LoRA": Case(Lora, VECTORS, {"layers": ["base", "down", "up"]}),
    "`torch.nn.utils.parametrize`, weight norm": Case(
        lambda: nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), nn.Linear(5, 4)), VECTORS
    ),
    "dropout and batch norm": Case(with_dropout, VECTORS),
    "`torch.compile`, `nn.DataParallel`": Case(lambda: torch.compile(nn.DataParallel(mlp())), VECTORS),
    "float64 or bfloat16": Case(lambda: mlp(dtype=torch.bfloat16), VECTORS.bfloat16()),
    "several inputs": Case(Two, {"left": VECTORS, "right": VECTORS.flip(0)}),
    "outputs in a tuple, a dict or a dataclass": Case(
        lambda: Of(lambda net, x: {"logits": net.a(x), "hidden": x}, a=nn.Linear(6, 4)),
        VECTORS,
        {"output": lambda out: out["logits"]},
    ),
    "a `DataLoader` or `Dataset`, with labels": Case(
        mlp, DataLoader(TensorDataset(VECTORS, torch.zeros(40)), batch_size=8, shuffle=True)
    ),
    "data under other names": Case(
        mlp, DataLoader([{"image": x} for x in VECTORS], batch_size=8), {"inputs": lambda batch: batch["image"]}
    ),
}
"""First column of the table → a network of that kind, which `fit` takes."""

REFUSED: dict[str, Case] = {
    "`nn.LSTM`, `nn.GRU`, `nn.RNN`": Case(
        lambda: Of(lambda net, x: net.lstm(x)[0], lstm=nn.LSTM(8, 4, batch_first=True)), SEQUENCES, {"layers": ["lstm"]}
    ),
    "attention that is still packed": Case(encoder, SEQUENCES, {"layers": ["self_attn"]}),
    "a convolution with groups": Case(lambda: nn.Conv2d(2, 2, 3, groups=2), torch.rand(9, 2, 5, 5), {"layers": [""]}),
    "one layer that is called twice": Case(
        lambda: Of(lambda net, x: net.a(torch.relu(net.a(x))), a=nn.Linear(6, 6)), VECTORS, {"layers": ["a"]}
    ),
    "a weight that is used outside of its layer": Case(
        lambda: Of(lambda net, x: net.a(x) @ net.a.weight, a=nn.Linear(6, 4)), VECTORS, {"layers": ["a"]}
    ),
    "quantised layers": Case(
        lambda: torch.ao.quantization.quantize_dynamic(mlp(), {nn.Linear}), VECTORS, {"layers": ["0"]}
    ),
    "`torch.jit`": Case(lambda: torch.jit.script(mlp()), VECTORS, {"layers": ["0"]}),
}
"""First column of the table → a network of that kind, which is refused with the sentence of the last column."""


def rows() -> dict[str, str]:
    """First column of the table → last column."""
    table = re.search(r"<!-- networks -->\n(.*?)<!-- /networks -->", README, re.S)[1]
    cells = [[cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in table.splitlines()[2:] if line]
    return {row[0]: row[-1] for row in cells}


def fit(case):
    return pdh.fit(case.network(), CONFIG, case.data, device="cpu", show_progress=False, **case.arguments)


def test_the_table_has_these_rows():
    assert list(rows()) == [*WORKS, *REFUSED]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*enable_nested_tensor")
@pytest.mark.parametrize("name", WORKS)
def test_it_works(name):
    torch.manual_seed(0)
    run = fit(WORKS[name])
    assert rows()[name] == "works"
    assert run.step == 2
    x = run.data(3, torch.Generator())
    assert all(g.shape[-1] == 3 and g.isfinite().all() for g in run.importances(x).values())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name):
    sentence = rows()[name].strip("“”")
    with pytest.raises((TypeError, ValueError)) as error:
        fit(REFUSED[name])
    assert sentence.replace("`", "") in str(error.value)
