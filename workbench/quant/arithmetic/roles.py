"""What a product of a DeepSeek layer is, by the name of its module: who multiplies in which precision.

Source: the releases' tensor lists (FP4: routed experts; FP8: the linear maps named here; BF16: the rest) and
V4's reference code (model.py).
"""

import re
from typing import Literal

Role = Literal["experts", "linear", "plain"]
"""Products with the weights of routed experts; with weights stored in FP8; all others of the matrix unit."""

ROLES: tuple[Role, ...] = ("experts", "linear", "plain")

_PATTERNS: tuple[tuple[Role, str], ...] = (
    ("experts", r"mlp\.experts"),
    ("plain", r"compressor(\.indexer)?\.(kv_proj|gate_proj)|scorer\.weights_proj|self_attn\.(o_a_proj|core)"),
    ("linear", r"self_attn\.(q_a|q_b|kv|o_b|kv_b|o)_proj|self_attn\.kv_a_proj_with_mqa"),
    ("linear", r"indexer\.q_b_proj|indexer\.(wq_b|wk)|(e|h|eh)_proj"),
    ("linear", r"mlp\.(shared_experts\.)?(gate|up|down)_proj"),
    ("plain", r"indexer\.weights_proj"),
)


def role_of(module: str) -> Role | None:
    """The role of a module's products; None: it has none, or they stay in FP32 (router, mixing, head).

    V4's first output map is stored in FP8, but multiplies in BF16.
    """
    for role, pattern in _PATTERNS:
        if re.search(rf"(^|\.)({pattern})$", module):
            return role
    return None
