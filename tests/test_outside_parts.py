"""Components that stick out of a narrow stream: harmless with everything on, but not under masks (notebook 03)."""

import pytest
import torch
from torch import Tensor

import pd_helpers as pdh
from pd_helpers.course.training_the_targets import ideas


@pytest.fixture(scope="module")
def run() -> pdh.Run:
    return pdh.shipped("spd/resid_mlp_2")


@pytest.fixture(scope="module")
def rows(run) -> tuple[Tensor, dict[str, Tensor]]:
    x = run.data(200, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    return x, {path: torch.rand(g.shape, generator=generator) for path, g in run.importances(x).items()}


def test_without_outside_parts_the_output_is_the_models(run, rows):
    x, masks = rows
    torch.testing.assert_close(ideas.OutsideParts(run).output(x, masks, None), run.components(x, masks).output)


def test_outside_parts_are_those_of_a_wider_stream(run, rows):
    x, masks = rows
    parts = ideas.OutsideParts(run, n=3)
    narrow = run.target
    wide = type(narrow)(n_features=100, n_outputs=100, d_resid=1000, d_mlp=25, n_layers=2, bias=False, width=203)
    wide = wide.requires_grad_(False)
    model = pdh.decompose(wide, {path: layer.C for path, layer in run.components.layers.items()}, rank=1)
    with torch.no_grad():
        for matrix, source in ((model.target.W_E, narrow.W_E), (model.target.W_U.T, narrow.W_U.T)):
            matrix.zero_()[:200] = source
        for path, layer in run.components.layers.items():
            lifted = model.layers[path]
            lifted.U[:, : layer.d_out] = layer.U
            lifted.V[..., : layer.d_in] = layer.V
        writes, reads = parts.outside
        model.layers[ideas.WRITES].U[:, 200:, 0] = writes
        model.layers[ideas.READS].V[:, 0, 200:] = reads
        torch.testing.assert_close(parts.output(x, masks, parts.outside), model(x, masks).output)
        for outside in (model.sums[ideas.WRITES][200:], model.sums[ideas.READS][:, 200:]):
            torch.testing.assert_close(outside, torch.zeros_like(outside), atol=1e-5, rtol=0)


def test_they_change_outputs_under_masks_only_and_training_makes_them_harmless(run):
    errors = ideas.outside_losses(run, steps=40, n_rows=1000, show_progress=False)
    assert errors["all on"] < 1e-5
    assert errors["random"] > 1.005 * errors["none"]
    assert 0.999 * errors["none"] < errors["trained"] < errors["random"]
