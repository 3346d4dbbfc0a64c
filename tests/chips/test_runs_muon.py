"""Muon's work against torch's own count, the optimiser's own list of matrices, and a hand-worked share."""

from collections import Counter

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from workbench.chips import load_chip
from workbench.chips.runs import muon_flop, muon_rows, muon_s
from workbench.chips.runs.muon import Matrices, muon_matrices
from workbench.config import load_config
from workbench.model import Transformer
from workbench.training.newton_schulz import HYBRID, orthogonalise
from workbench.training.parameter_groups import parameter_groups

TINY = load_config("tiny")


@pytest.mark.parametrize("shape", [(8, 24), (32, 32), (40, 12)])
def test_torch_counts_the_same_flop(shape):
    n, m = sorted(shape)
    with FlopCounterMode(display=False) as counter:
        orthogonalise(torch.randn(*shape), HYBRID)
    assert counter.get_total_flops() == Matrices(n, m, 1, False).flop


def test_the_optimiser_has_the_same_matrices():
    model = Transformer(TINY, generator=torch.Generator().manual_seed(0))
    found = Counter()
    for group in parameter_groups(model)[0]:
        for p in group["params"]:
            rows, columns = p.shape[-2] // group["parts"], p.shape[-1]
            stacked = p.shape[:-2].numel() * group["parts"]
            found[min(rows, columns), max(rows, columns)] += stacked
    ours = Counter()
    for matrices in muon_matrices(TINY):
        ours[matrices.n, matrices.m] += matrices.count
    assert ours == found


def test_v4_pro_s_step_by_hand():
    # 62 layers (MTP's included) of 384 experts with three matrices of 3,072 × 7,168 each.
    experts = 62 * 384 * 3 * 10 * (4 * 3072**2 * 7168 + 2 * 3072**3)
    pro = load_config("deepseek-v4-pro")
    assert muon_rows(pro)[0]["flop"] == experts
    assert experts < muon_flop(pro) < 1.05 * experts
    assert sum(row["flop"] for row in muon_rows(pro)) == pytest.approx(muon_flop(pro))


def test_more_devices_help_until_each_has_one_matrix():
    pro, chip = load_config("deepseek-v4-pro"), load_chip("h800")
    at = {n: float(muon_s(pro, chip, n).expected) for n in (512, 2048, 80_000, 800_000)}
    # The largest single matrix stays whole, so a quarter of the devices takes a little less than four times.
    assert 3 * at[2048] < at[512] < 4 * at[2048]
    assert at[80_000] == pytest.approx(at[800_000]) and at[80_000] < at[2048]
    # Never below the FLOPs at the peak.
    assert at[2048] > muon_flop(pro) / 2048 / chip.peak_flop_per_s["bf16"]
    with pytest.raises(ValueError, match="muon_s: devices is 0"):
        muon_s(pro, chip, 0)
