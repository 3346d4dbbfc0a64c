"""Newton-Schulz against the singular value decomposition, and its map of singular values."""

import pytest
import torch

from workbench.training.newton_schulz import (
    HYBRID,
    PINNING,
    STEEP,
    orthogonalise,
    singular_value_map,
    singular_values_by_step,
)
from workbench.training.newton_schulz import with_singular_values as made_with_singular_values


def with_singular_values(rand, n, m, values):
    u = torch.linalg.qr(rand(n, n, dtype=torch.float64)).Q[:, : len(values)]
    v = torch.linalg.qr(rand(m, m, dtype=torch.float64)).Q[:, : len(values)]
    return u, v, u @ torch.diag(values) @ v.T


@pytest.mark.parametrize(("n", "m"), [(8, 8), (6, 20), (20, 6)])
def test_a_matrix_becomes_u_times_v(rand, n, m):
    values = torch.logspace(0, -2, 6, dtype=torch.float64)
    u, v, x = with_singular_values(rand, n, m, values)
    torch.testing.assert_close(orthogonalise(x, dtype=torch.float64), u @ v.T, rtol=0, atol=1e-3)


def test_the_map_is_what_happens_to_singular_values(rand):
    values = torch.tensor([0.9, 0.3, 0.05], dtype=torch.float64)
    _, _, x = with_singular_values(rand, 5, 7, values)
    found = torch.linalg.svdvals(orthogonalise(x, dtype=torch.float64))[:3]
    expected = singular_value_map(values / values.norm())
    torch.testing.assert_close(found, expected.sort(descending=True).values)


def test_where_singular_values_end():
    # Spec: within 5.4e-4 from 1e-3 up, 2e-3 from 1e-4 up; ten steep steps alone leave 0.68 to 1.13.
    for low, error in ((1e-3, 5.4e-4), (1e-4, 2e-3)):
        sigma = torch.logspace(torch.log10(torch.tensor(low)).item(), 0, 20_001, dtype=torch.float64)
        assert (singular_value_map(sigma) - 1).abs().max() <= error * 1.02
    steep = singular_value_map(torch.logspace(-3, 0, 20_001, dtype=torch.float64), (STEEP,) * 10)
    assert steep.min() == pytest.approx(0.68, abs=0.01)
    assert steep.max() == pytest.approx(1.13, abs=0.01)


def test_the_second_stage_pins_one():
    a, b, c = PINNING
    assert a + b + c == 1
    assert a + 3 * b + 5 * c == 0
    assert 6 * b + 20 * c == 1  # the curvature: convergence is quadratic, not cubic
    assert len(HYBRID) == 10


def test_a_batch_is_its_matrices_and_zero_stays_zero(rand):
    x = rand(3, 4, 6)
    x[1] = 0
    together = orthogonalise(x)
    torch.testing.assert_close(together, torch.stack([orthogonalise(one) for one in x]))
    assert not together[1].any()


def test_scale_and_transpose_do_not_matter(rand):
    x = rand(4, 9)
    torch.testing.assert_close(orthogonalise(1e-6 * x), orthogonalise(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(orthogonalise(x.T), orthogonalise(x).T)


def test_bf16_products_stay_near(rand):
    x = rand(16, 64)
    error = (orthogonalise(x, dtype=torch.bfloat16) - orthogonalise(x)).norm() / orthogonalise(x).norm()
    assert 0 < error < 0.02


def test_singular_values_by_step_follow_the_scalar_map():
    values = torch.logspace(0, -2, 6, dtype=torch.float64)
    x = made_with_singular_values(values, 9, torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.linalg.svdvals(x.double()), values, rtol=1e-5, atol=1e-7)
    by_step = singular_values_by_step(x, HYBRID, torch.float64)
    assert len(by_step) == 11
    for step, found in enumerate(by_step):
        expected = singular_value_map(values / values.norm(), HYBRID[:step])
        torch.testing.assert_close(found, expected.sort(descending=True).values, rtol=1e-5, atol=1e-6)
