"""Which load an expert layer gets: uneven shares of the tokens, experts that nobody chose, groups that idle.

Popularity decides how many distinct experts a batch visits, and so how many weights are read; imbalance how
many rows reach the busiest rank. The two are apart: a layout may spread popular experts evenly.
"""

from __future__ import annotations

import numpy as np

from workbench.accounting.routing import experts_touched
from workbench.chips.mapping import Mapping
from workbench.chips.operations import Operation
from workbench.chips.workload import Size, Workload
from workbench.config import ModelConfig


def expert_load(
    config: ModelConfig, workload: Workload, mapping: Mapping, busy_groups: float
) -> tuple[float, Size]:
    """Rows that reach the busiest rank, and experts it touches, over those of an even, full stage."""
    is_even = busy_groups == 1 and not mapping.routing_skew
    if is_even or not config.num_experts_per_tok or not config.n_routed_experts:
        return mapping.expert_imbalance * busy_groups, 1.0
    run = workload.chunks()
    tokens = run.batch * run.tokens_computed * max(mapping.ep * mapping.moe_tp / mapping.attention_tp, 1)
    even = experts_touched(tokens, config.n_routed_experts, config.num_experts_per_tok)
    skewed = skewed_experts_touched(
        tokens * busy_groups, config.n_routed_experts, config.num_experts_per_tok, mapping.routing_skew
    )
    return mapping.expert_imbalance * busy_groups, skewed / even


def skewed_experts_touched(n_tokens: Size, n_experts: int, topk: int, skew: float) -> Size:
    """Distinct experts that a batch visits when some are more popular than others.

    Popularity is log-normal with mean 1 and standard deviation `skew` of its logarithm; 0 is
    accounting.experts_touched. An expert that x times as many tokens choose is missed by all with
    probability (1 − k/E)^(n·x).
    """
    if not skew:
        return experts_touched(n_tokens, n_experts, topk)
    popularity = np.exp(skew * _NODES - skew**2 / 2)
    miss = 1 - topk / n_experts
    n = np.asarray(n_tokens, dtype=np.float64)[..., None]
    touched = n_experts * (1 - (_WEIGHTS * miss ** (n * popularity)).sum(-1))
    # A token's own k choices are distinct whatever their popularity.
    return np.maximum(touched, np.minimum(topk, n_experts * 1.0))


# Gauss-Hermite nodes and weights of a standard normal variable.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def loaded(o: Operation, rows: float, experts: Size) -> Operation:
    """Expert work with more or fewer rows and experts."""
    is_grouped = o.kind == "grouped_gemm"
    return o.replace(
        batch=o.batch * experts if is_grouped else o.batch, m=o.m * rows / experts if is_grouped else o.m,
        flop=o.flop * rows, vector_flop=o.vector_flop * rows, weight_bytes=o.weight_bytes * experts,
        read_bytes=o.read_bytes * rows, write_bytes=o.write_bytes * rows,
    )  # fmt: skip
