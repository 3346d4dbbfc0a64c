"""Sums over ranks in BF16: who rounds how often, and what that costs."""

import pytest
import torch

from workbench.training.gradient_sums import ring_sum, round_to_bf16, two_phase_sum


def test_nearest_is_torchs_cast(rand):
    x = rand(3, 50)
    assert torch.equal(round_to_bf16(x), x.bfloat16().float())


def test_by_chance_the_mean_is_the_number_and_both_neighbours_come():
    x = torch.full((20_000,), 1 + 0.25 / 128)  # a quarter of the way from 1 to the next BF16 number
    rounded = round_to_bf16(x, torch.Generator().manual_seed(0))
    assert set(rounded.tolist()) == {1.0, 1 + 1 / 128}
    assert rounded.mean().item() == pytest.approx(x[0].item(), abs=4 / 128 * (0.25 * 0.75 / 20_000) ** 0.5)
    assert torch.equal(round_to_bf16(x), torch.ones_like(x))  # to nearest all are lost


def test_the_ring_is_a_loop_of_bf16_additions(rand):
    parts = rand(5, 7)
    total = parts[0].bfloat16()
    for part in parts[1:]:
        total = (total.float() + part).bfloat16()
    assert torch.equal(ring_sum(parts), total.float())


def test_errors_of_the_ring_grow_with_the_ranks_those_of_two_phases_do_not(rand):
    def errors(ranks):
        parts = rand(ranks, 2000)
        exact = parts.double().sum(0)
        found = (ring_sum(parts), two_phase_sum(parts, torch.Generator().manual_seed(ranks)))
        return [float((x - exact).norm() / exact.norm()) for x in found]

    (ring_4, flat_4), (ring_64, flat_64) = errors(4), errors(64)
    assert ring_64 > 2 * ring_4
    assert flat_64 < 1.2 * flat_4


def test_one_rank_is_only_rounded(rand):
    x = rand(1, 9)
    assert torch.equal(ring_sum(x), round_to_bf16(x[0]))
