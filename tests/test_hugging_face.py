"""The example with transformers' GPT-2 and Llama, run as it stands, and resumed after it was stopped."""

import sys
from pathlib import Path

import pytest
import torch

import pd_helpers as pdh

pytest.importorskip("transformers")
sys.path.append(str(Path(__file__).parents[1] / "examples"))

import hugging_face

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
BOTH = pytest.mark.parametrize("make", [hugging_face.gpt2, hugging_face.llama], ids=["gpt2", "llama"])


@BOTH
def test_the_example(make, tmp_path):
    run = hugging_face.take_apart(make, tmp_path, show_progress=False)
    assert run.step == 200
    assert run.history["recon"].iloc[-5:].mean() < 0.5 * run.history["recon"].iloc[:5].mean()
    g = run.importances(torch.randint(100, (3, 7)))
    assert {values.shape for values in g.values()} == {(3, 7, 20)}


@BOTH
def test_a_stopped_run_continues_bit_for_bit(make, tmp_path, monkeypatch):
    config = hugging_face.CONFIG.replace(steps=8)
    tokens = torch.randint(100, (50, 16), generator=torch.Generator().manual_seed(1))
    arguments = {"output": hugging_face.logits, "device": "cpu", "show_progress": False}
    whole = pdh.fit(make(), config, tokens, **arguments)

    step = torch.optim.Adam.step
    count = iter(range(100))

    def interrupted(self, *values, **named):
        if next(count) == 5:
            raise KeyboardInterrupt
        return step(self, *values, **named)

    monkeypatch.setattr(torch.optim.Adam, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pdh.fit(make(), config, tokens, out=tmp_path / "run", **arguments)
    monkeypatch.undo()
    resumed = pdh.resume(tmp_path / "run", target=make(), data=tokens, output=hugging_face.logits, show_progress=False)
    for mine, theirs in zip(resumed.components.factors, whole.components.factors, strict=True):
        assert torch.equal(mine, theirs)
    assert resumed.metrics == whole.metrics
