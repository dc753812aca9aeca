"""The transcoder against hand-set weights and closed forms."""

import pytest
import torch

from pd_helpers.course.spd_superposition import ideas as transcoder
from pd_helpers.course.spd_superposition.ideas import Transcoder, TranscoderConfig


def test_activations_and_output_by_hand():
    coder = Transcoder(
        torch.tensor([[1.0, 0.0], [0.0, -2.0]]), torch.tensor([-1.0, 0.5]), torch.diag(torch.tensor([3.0, 5.0]))
    )
    z = coder.activations(torch.tensor([[3.0, 1.0], [0.5, -1.0]]))
    torch.testing.assert_close(z, torch.tensor([[2.0, 0.0], [0.0, 2.5]]))
    torch.testing.assert_close(coder.output(z), z)  # columns of D count as if they had length one


def test_the_price_shrinks_the_code_by_half_of_it():
    """On the constant y = 2, (z − 2)² + price · z is smallest at z = 2 − price / 2, however many latents share it."""
    W, price = torch.tensor([[2.0]]), 0.4
    config = TranscoderConfig(n_latents=4, l1_coeff=price, steps=1000, batch_size=1)
    coder = transcoder.fit(W, lambda n, _: torch.ones(n, 1), config)
    a = torch.ones(10, 1)
    torch.testing.assert_close(coder.output(coder.activations(a)), torch.full((10, 1), 1.8), atol=1e-3, rtol=0)
    found = transcoder.measure(coder, W, a, price)
    assert found.unexplained == pytest.approx(0.01, rel=0.02)  # 0.2² / 2²
    assert found.loss == pytest.approx(0.2**2 + price * 1.8, rel=1e-3)


def test_two_opposite_inputs_get_a_latent_each():
    def inputs(n, draw):
        return torch.where(torch.rand(n, 1, generator=draw) < 0.5, 1.0, -1.0)

    coder = transcoder.fit(
        torch.eye(1), inputs, TranscoderConfig(n_latents=2, l1_coeff=0.1, batch_size=64, steps=500), 1
    )
    z = coder.activations(torch.tensor([[1.0], [-1.0]]))
    assert (z > 0).sum(dim=1).tolist() == [1, 1]
    torch.testing.assert_close(z.sum(dim=1), torch.full((2,), 0.95), atol=0.01, rtol=0)


def test_at_the_start_all_latents_together_give_about_the_output_or_few_fire():
    def inputs(n, draw):
        return torch.randn(n, 3, generator=draw)

    W, a = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 1.0]]), inputs(500, torch.Generator().manual_seed(5))
    together = transcoder.fit(W, inputs, TranscoderConfig(n_latents=4000, steps=0))
    assert transcoder.measure(together, W, a, 0.0).unexplained < 0.01
    quiet = transcoder.fit(torch.eye(3), inputs, TranscoderConfig(n_latents=4000, start="quiet", steps=0))
    torch.testing.assert_close(quiet.E.norm(dim=1), torch.ones(4000))
    fires = (quiet.activations(a) > 0).float().mean().item()
    assert fires == pytest.approx(0.3085, abs=0.02)  # a standard normal number exceeds 0.5


def test_measure_counts_by_hand():
    """Three latents read one number: above 0, above 0.95, and never."""
    coder = Transcoder(torch.tensor([[1.0], [1.0], [-1.0]]), torch.tensor([0.0, -0.95, 0.0]), torch.ones(1, 3))
    a = torch.tensor([[0.5], [1.0]])
    found = transcoder.measure(coder, torch.eye(1), a, l1_coeff=2.0)
    assert (found.alive, found.strong, found.l0) == (2, 1, 1.5)  # activations 0.5, then 1 and 0.05
    assert found.unexplained == pytest.approx(0.05**2 / 1.25, rel=1e-4)
    assert found.activity == pytest.approx(1.55 / 2)
    assert found.loss == pytest.approx((0.05**2 + 2 * 1.55) / 2)


def test_the_same_seed_gives_the_same():
    config = TranscoderConfig(n_latents=3, steps=5)
    a, b, c = (transcoder.fit(torch.eye(2), lambda n, g: torch.rand(n, 2, generator=g), config, s) for s in (0, 0, 1))
    assert torch.equal(a.E, b.E)
    assert not torch.equal(a.E, c.E)


def test_it_says_what_it_needs():
    with pytest.raises(ValueError, match="n_latents must be"):
        TranscoderConfig(n_latents=0)
    with pytest.raises(ValueError, match="start must be"):
        TranscoderConfig(start="loud")
    with pytest.raises(ValueError, match="l1_coeff must be"):
        TranscoderConfig(l1_coeff=-1.0)
