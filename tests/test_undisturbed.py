"""What a caller finds as it was: torch's global random state and modes, whatever the package did in between."""

import pytest
import torch
from networks import MLP

import pd_helpers as pdh

SMALL = {"steps": 5, "n_init": 1, "batch_size": 16, "target_steps": 5, "C": 6, "d_gate": 4}

pytestmark = pytest.mark.usefixtures("as_a_user", "quick_evaluation")


def data(batch_size, generator):
    return torch.randn(batch_size, 3, generator=generator)


def fit(**options):
    torch.manual_seed(0)
    return pdh.fit(MLP(), pdh.SPDConfig(C=4, steps=5, batch_size=16), data, ["fc1"], show_progress=False, **options)


CALLS = {
    "run": lambda _: pdh.run("spd/tms_5-2", 3, show_progress=False, **SMALL),
    "run with out": lambda path: pdh.run("spd/tms_5-2", 3, show_progress=False, out=path / "run", **SMALL),
    "prepare": lambda _: pdh.prepare("spd/resid_mlp_1", 3, show_progress=False, **SMALL, n_features=9, d_mlp=4),
    "shipped": lambda _: pdh.shipped("spd/resid_mlp_1"),
    "make_target": lambda _: pdh.make_target(pdh.TMSConfig(target_steps=3), show_progress=False),
    "sweep": lambda _: pdh.sweep("spd/tms_5-2", {"seed": [1, 2]}, n_jobs=1, show_progress=False, **SMALL),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_global_random_state_stays(name, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    CALLS[name](tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_the_global_random_state_does_not_matter():
    torch.manual_seed(1)
    one = CALLS["run"](None)
    torch.manual_seed(2)
    assert torch.equal(one.components.factors[0], CALLS["run"](None).components.factors[0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_works_whatever_the_mode(mode, tmp_path):
    whole = CALLS["run"](None)
    with mode():
        inside = CALLS["run with out"](tmp_path)
        assert not torch.is_grad_enabled()
        stepped = CALLS["prepare"](None)
        assert list(stepped.steps()) == [1, 2, 3, 4, 5]
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    assert torch.equal(whole.components.factors[0], inside.components.factors[0])
    assert inside.metrics == whole.metrics


def test_a_fit_inside_no_grad_is_the_same_as_outside():
    whole = fit()
    with torch.no_grad():
        assert torch.equal(whole.components.factors[0], fit().components.factors[0])
