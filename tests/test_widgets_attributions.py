"""The attribution lab: its numbers are those of the core, and its closed form that of the quadrature."""

import pytest
import torch
from networks import draw, randomize

from pd_helpers.analysis.ablation import ablated, integrated, root_mean_square
from pd_helpers.core.attributions import tangents
from pd_helpers.course.attributions.lab import ALL
from pd_helpers.targets.tms import TMS
from pd_helpers.widgets import AttributionLab


@pytest.fixture
def target():
    return randomize(TMS(n_features=5, n_hidden=2)).requires_grad_(False)


@pytest.fixture
def cuts(target):
    W = target.embed.weight
    noise = draw(3, 2, 5, seed=1)
    return {
        "mechanisms": torch.einsum("ic,cj->cij", W, torch.eye(5).double()),
        "noise": noise + (W - noise.sum(dim=0)) / 3,
    }


def test_the_closed_form_of_the_integral_is_that_of_the_quadrature(target, cuts):
    lab = AttributionLab(target, cuts)
    W, b = target.embed.weight, target.unembed.bias
    assert (b > 0).any()
    assert (b < 0).any()
    for name in cuts:
        lab.cut.value = name
        for x in (2 * draw(12, 5, seed=3)).split(1):
            squares = -b / (x @ W.T @ W)[0]
            kinks = squares[squares > 0].sqrt().tolist()
            truth = integrated(target, x, {"embed": cuts[name]}, {"embed": torch.zeros_like(W)}, kinks=kinks)
            torch.testing.assert_close(lab.effects(x)["integrated"], truth, rtol=1e-8, atol=1e-10)


def test_effects_follow_the_controls(target, cuts):
    lab = AttributionLab(target, cuts)
    for name, first, second, output, component in (
        ("mechanisms", 0.5, 0.6, ALL, 0),
        ("mechanisms", 1.0, 0.2, 1, 4),
        ("noise", 0.3, 0.9, 0, 2),
    ):
        lab.cut.value = name
        lab.first_value.value, lab.second_value.value = first, second
        lab.output.value, lab.component.value = output, component
        x, P = torch.zeros(1, 5).double(), {"embed": cuts[name]}
        x[0, 0], x[0, lab.second] = first, second
        torch.testing.assert_close(lab.values.outputs, target(x)[0])
        for estimate, effects in (("gradient", tangents(target, x, P)), ("ablation", ablated(target, x, P))):
            expected = root_mean_square(effects)[0] if output == ALL else effects[:, 0, output]
            torch.testing.assert_close(lab.values.effects[estimate], expected)
        shown = ", ".join(f"{name} {effects[component]:.3f}" for name, effects in lab.values.effects.items())
        assert shown in lab.alt


def test_curves_pass_through_the_effects_at_this_input_and_bend_at_kinks(target, cuts):
    lab = AttributionLab(target, cuts)
    lab.second_value.value = 1.0
    for estimate, curve in lab.values.curves.items():
        torch.testing.assert_close(curve[-1], lab.values.effects[estimate][lab.component.value])
    inputs = torch.zeros(len(lab.values.moving), 5).double()
    inputs[:, 0], inputs[:, lab.second] = lab.first_value.value, lab.values.moving
    on = target(inputs) > 0
    switches = (on[1:] != on[:-1]).any(dim=1)
    assert len(lab.values.kinks) == switches.sum() > 0
    spacing = lab.values.moving[1].item()
    assert lab.values.kinks == pytest.approx([(i + 0.5) * spacing for i in switches.nonzero().flatten().tolist()])


def test_fewer_components_move_the_component_slider_back(target, cuts):
    lab = AttributionLab(target, cuts)
    lab.component.value = 4
    lab.cut.value = "noise"
    assert (lab.component.value, lab.component.max) == (2, 2)
    assert (lab.values.cut, lab.values.component) == ("noise", 2)
    assert "Effects of component 2" in lab.alt


def test_components_that_do_not_add_up_are_refused(target, cuts):
    with pytest.raises(ValueError, match="'half' must add up"):
        AttributionLab(target, {"half": 0.5 * cuts["mechanisms"]})
    with pytest.raises(ValueError, match="without an identity layer"):
        AttributionLab(TMS(n_features=5, n_hidden=2, identity=True), cuts)
