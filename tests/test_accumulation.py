"""A batch that is computed in parts gives the losses, gradients and draws of the whole batch."""

import pytest
import torch
from shared import APD, CASES, MLP, SPD, dense, fitted, mixing, numbers, of
from torch import nn

import pd_helpers as pdh

pytestmark = pytest.mark.usefixtures("as_a_user", "one_thread", "quick_evaluation")

IN_PARTS = [case for case in CASES if "loader" not in case]


@pytest.mark.parametrize("case", IN_PARTS)
def test_parts_give_the_run_of_the_whole_batch(case):
    tolerance = {"rel": 1e-4, "abs": 1e-6} if "float32" in case else {"rel": 1e-9, "abs": 1e-12}
    whole = fitted(case, steps=8)
    assert whole.history["faithfulness"].iloc[-1] < whole.history["faithfulness"].iloc[0]
    for n in (2, 3, 10) if case == "spd, positions" else (2, 3):
        run = fitted(case, n, steps=8)
        assert run.config.micro_batches == n
        for name, values in numbers(whole).items():
            assert numbers(run)[name] == pytest.approx(values, **tolerance), (n, name)
        for name, parameter in whole.method.parameters().items():
            torch.testing.assert_close(
                run.method.parameters()[name], parameter, rtol=tolerance["rel"], atol=1e3 * tolerance["abs"]
            )
        assert torch.equal(run.method.generator.get_state(), whole.method.generator.get_state())


@pytest.mark.parametrize("config", [SPD, APD], ids=["spd", "apd"])
def test_no_more_than_a_part_is_computed_at_a_time(config):
    sizes = []

    def output_loss(output, target):
        sizes.append(len(output))
        return (output - target).square().mean()

    pdh.fit(of(MLP), config.replace(output_loss=output_loss, micro_batches=4), dense, show_progress=False)
    at_each_step = [2, 3, 2, 3] if config is APD else [2, 2, 2, 3, 3, 3, 2, 2, 2, 3, 3, 3]  # SPD: all layers, then each
    n = 20 * len(at_each_step)
    assert any(sizes[i : i + n] == 20 * at_each_step for i in range(len(sizes) - n + 1))


def test_a_batch_has_at_least_as_many_inputs_as_parts():
    for config in (SPD, APD):
        with pytest.raises(ValueError, match="micro_batches must be at most batch_size = 10, but is 11; 10 works"):
            config.replace(micro_batches=11)
        with pytest.raises(ValueError, match="micro_batches must be a whole number of at least 1, but is 0"):
            config.replace(micro_batches=0)


def test_inputs_that_depend_on_one_another_cannot_be_parted():
    with pytest.raises(ValueError, match="computes an input from the others of its batch.*; micro_batches=1 works"):
        pdh.fit(of(mixing), SPD.replace(micro_batches=2), dense, ["0"], show_progress=False)


def test_rows_whose_number_depends_on_the_input_cannot_be_parted():
    class Chosen(nn.Module):
        """Reads only those inputs whose first number is above zero."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            chosen = x[:, 0] > 0
            return torch.zeros(len(x), 2, dtype=x.dtype).index_add(0, chosen.nonzero()[:, 0], self.layer(x[chosen]))

    with pytest.raises(ValueError, match="number of rows .* depends on the input.*; micro_batches=1, in one"):
        pdh.fit(of(Chosen), SPD.replace(micro_batches=2, batch_size=50), dense, show_progress=False)
