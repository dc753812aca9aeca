"""Two language models of transformers taken apart: a tiny GPT-2 and a small Llama, with random weights.

    pip install pd-helpers[hf]
    python examples/hugging_face.py

Nothing is downloaded. For a model of yours, put `AutoModelForCausalLM.from_pretrained(...)` and its tokens in place of
these.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import pd_helpers as pdh

VOCABULARY, LENGTH = 100, 16
CONFIG = pdh.SPDConfig(C=20, d_gate=8, steps=200, batch_size=16, lr=3e-3, output_loss="kl", importance_coeff=1e-4)


def gpt2() -> nn.Module:
    """Two layers of width 64."""
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": LENGTH, "vocab_size": VOCABULARY}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def llama() -> nn.Module:
    """Two layers of width 64, with half as many heads for keys and values as for queries."""
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "vocab_size": VOCABULARY}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2))


def logits(answer) -> Tensor:
    """What is compared: (inputs, positions, vocabulary)."""
    return answer.logits


def take_apart(make: Callable[[], nn.Module], folder: Path, *, show_progress: bool = True) -> pdh.Run:
    """Decompose all linear layers; look at it, edit it, export it, store it and read it back."""
    network, tokens = make(), torch.randint(VOCABULARY, (2000, LENGTH), generator=torch.Generator().manual_seed(0))

    run = pdh.fit(network, CONFIG, tokens, output=logits, out=folder / "run", show_progress=show_progress)
    print(run)

    layer = next(path for path in run.components.layers if "mlp" in path)
    importances = run.importances(tokens[:2])[layer]  # (2 sequences, 16 positions, C): one for each token
    print(f"{layer}: importances {tuple(importances.shape)}")
    print(run.active(tokens[:2]).head())

    component = int(importances.mean(dim=(0, 1)).argmax())
    edited = run.edited({layer: {component: 0.0}})  # a plain GPT2LMHeadModel without this component
    change = (logits(edited(tokens[:2])) - logits(network.eval()(tokens[:2]))).abs().max().item()
    print(f"without component {component} of {layer}, logits change by up to {change:.3f}")
    print(f"exported: {len(run.export())} tensors")

    again = pdh.load(folder / "run", target=make(), output=logits)
    assert again.metrics == run.metrics
    return run


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for make in (gpt2, llama):
            take_apart(make, Path(folder) / make.__name__)
