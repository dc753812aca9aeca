"""What W_out's subcomponents are: each measure against a case worked out by hand."""

import pytest
import torch

import pd_helpers as pdh
from pd_helpers.analysis import output_matrix


def test_co_activation_divides_by_how_often_the_row_is_on():
    g = torch.tensor([[1.0, 1.0, 0.0], [0.2, 0.05, 0.0], [0.9, 0.5, 0.1], [0.3, 0.0, 0.0]])
    # piece 0 is on in all four rows, piece 1 in two of them; 0.1 is not above 0.1, so piece 2 never is
    found = output_matrix.co_activation(g)
    assert found[0].tolist() == [1.0, 0.5, 0.0]
    assert found[1].tolist() == [1.0, 1.0, 0.0]
    assert found[2].isnan().all()


def test_axis_alignment_is_1_along_an_axis_and_least_on_the_diagonal():
    directions = torch.tensor([[0.0, -3.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0], [3.0, 4.0, 0.0, 0.0]])
    assert output_matrix.axis_alignment(directions).tolist() == pytest.approx([1.0, 0.5, 0.8])


@pytest.fixture(scope="module")
def run():
    return pdh.shipped("spd/resid_mlp_1")


def test_the_ablation_curve_begins_whole_and_ends_without_the_layer(run):
    x = run.data(300, torch.Generator().manual_seed(0))
    order = torch.arange(100).expand(300, -1)
    curve = output_matrix.errors_without(run, x, {"mlps.0.W_out": order}, [0, 100])
    skip = x @ (run.target.W_U @ run.target.W_E).T
    assert curve[0] < 1e-5
    assert curve[1] == pytest.approx((run.target(x) - skip).square().mean().item(), rel=1e-4)


def test_an_order_switches_off_its_first_pieces_on_each_row(run):
    x = 0.75 * torch.eye(100)[:2]
    one, other = torch.tensor([[3, 8], [8, 3]]), torch.ones(2, 100)
    other[0, 3] = other[1, 8] = 0
    [found] = output_matrix.errors_without(run, x, {"mlps.0.W_out": one}, [1])
    with torch.no_grad():
        wanted = run.components(x, {"mlps.0.W_out": other}).output
    assert found == pytest.approx((wanted - run.target(x)).square().mean().item(), rel=1e-5)


def test_the_shipped_runs_w_out_is_its_neurons(run):
    """What notebook 14 says: the fifty long pieces read one neuron each, all different."""
    layer = run.components.layers["mlps.0.W_out"]
    fifty = layer.P.detach().norm(dim=(1, 2)).argsort(descending=True)[:50]
    reads = layer.V.detach()[fifty, 0]
    assert output_matrix.axis_alignment(reads).min() > 0.99
    assert len(reads.abs().argmax(dim=1).unique()) == 50
