"""Mixture of experts: a router chooses k of e small networks for each token; one more serves all tokens.

Report: section 2.1 (DeepSeekMoE, hash routing in the first layers, clamped SwiGLU).
Axes: t tokens, d hidden_size, e experts, k chosen experts, i moe_intermediate_size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.model.precision import KeepsFloat32
from workbench.model.v4_config import V4Config


def clamped_swiglu(gate: Tensor, up: Tensor, limit: float) -> Tensor:
    """silu(min(gate, L)) · clamp(up, -L, L): the gate has no lower bound."""
    return F.silu(gate.clamp(max=limit)) * up.clamp(min=-limit, max=limit)


class Router(KeepsFloat32):
    """The learned router: affinities a = sqrt(softplus(x Wᵀ)), the k largest a + bias, weights from a.

    The bias serves selection only; the weights of the k chosen are scaled to sum to
    routed_scaling_factor.

    Shapes: x (t, d), token_ids (t,) -> weights (t, k), expert ids (t, k).
    Source: V4 report, section 2.1; module names of transformers.
    """

    float32_tensors: tuple[str, ...] = ("e_score_correction_bias",)

    def __init__(self, config: V4Config):
        super().__init__()
        self.topk, self.scaling = config.num_experts_per_tok, config.routed_scaling_factor
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        self._add_choice(config)

    def _add_choice(self, config: V4Config) -> None:
        self.e_score_correction_bias: Tensor
        self.register_buffer("e_score_correction_bias", torch.zeros(config.n_routed_experts))

    def affinity(self, x: Tensor) -> Tensor:
        """a = sqrt(softplus(x Wᵀ)): (t, d) -> (t, e)."""
        affinity = F.softplus(F.linear(x, self.weight))
        # Far below zero softplus underflows, and the slope of the root at 0 would make NaN of a gradient.
        return affinity.clamp(min=torch.finfo(affinity.dtype).tiny).sqrt()

    def forward(self, x: Tensor, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        affinity = self.affinity(x)
        experts = self._choose(affinity, token_ids)
        chosen = affinity.gather(1, experts)
        return chosen / (chosen.sum(dim=-1, keepdim=True) + 1e-20) * self.scaling, experts

    def _choose(self, affinity: Tensor, token_ids: Tensor) -> Tensor:
        return (affinity + self.e_score_correction_bias).topk(self.topk, dim=-1, sorted=False).indices


class HashRouter(Router):
    """The router of the first layers: a fixed table maps the token id to its k experts.

    Which experts is fixed; how much each counts is still learned.
    """

    float32_tensors = ()

    def _add_choice(self, config: V4Config) -> None:
        self.tid2eid: Tensor
        table = torch.zeros(config.vocab_size, config.num_experts_per_tok, dtype=torch.long)
        self.register_buffer("tid2eid", table)

    def _choose(self, affinity: Tensor, token_ids: Tensor) -> Tensor:
        return self.tid2eid[token_ids]


class Experts(nn.Module):
    """The routed experts: clamped SwiGLUs, run on the tokens that chose them, one expert at a time.

    Tokens are sorted by expert, so each expert sees one contiguous slice. No token is dropped.

    Shapes: x (t, d), weights and experts (t, k) -> (t, d). gate_up_proj (e, 2i, d) holds the gate rows
        first; down_proj (e, d, i).
    """

    def __init__(self, config: V4Config):
        super().__init__()
        e, d, i = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.limit = config.swiglu_limit
        self.gate_up_proj = nn.Parameter(torch.empty(e, 2 * i, d))
        self.down_proj = nn.Parameter(torch.empty(e, d, i))

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        return run_experts(x, weights, experts, self.gate_up_proj, self.down_proj, self.limit)


def run_experts(
    x: Tensor, weights: Tensor, experts: Tensor, gate_up_proj: Tensor, down_proj: Tensor, limit: float
) -> Tensor:
    """Σ_k weights[t, k] · SwiGLU of expert experts[t, k] on x[t]: see Experts."""
    if len(x) == 1:
        return _run_one_token(x, weights, experts, gate_up_proj, down_proj, limit)
    order = experts.flatten().argsort(stable=True)
    token = order // experts.shape[1]
    counts = experts.flatten().bincount(minlength=len(down_proj)).tolist()

    def products(rows: Tensor, matrices: Tensor) -> Tensor:
        # unbind, because the gradient of indexing would fill a tensor of all experts for each of them.
        pairs = zip(rows.split(counts), matrices.unbind(0), strict=True)
        return torch.cat([F.linear(own, matrix) for own, matrix in pairs if len(own)])

    gate, up = products(x.index_select(0, token), gate_up_proj).chunk(2, dim=-1)
    # The weight of a choice rides on the hidden numbers, which are fewer than the outputs.
    hidden = clamped_swiglu(gate, up, limit) * weights.flatten().index_select(0, order).unsqueeze(-1)
    return torch.zeros_like(x).index_add(0, token, products(hidden, down_proj))


def _run_one_token(
    x: Tensor, weights: Tensor, experts: Tensor, gate_up_proj: Tensor, down_proj: Tensor, limit: float
) -> Tensor:
    """The same for a single token, as in decoding: nothing to sort, and one SwiGLU for its k experts."""
    chosen = experts[0].tolist()
    gate, up = torch.cat([F.linear(x, gate_up_proj[e]) for e in chosen]).chunk(2, dim=-1)
    hidden = clamped_swiglu(gate, up, limit)
    y = torch.cat([F.linear(row, down_proj[e]) for row, e in zip(hidden.split(1), chosen, strict=True)])
    return weights @ y


class SharedExpert(nn.Module):
    """The expert that serves every token: a clamped SwiGLU of the same width.

    Shapes: (..., d) -> (..., d).
    """

    def __init__(self, config: V4Config):
        super().__init__()
        d, i = config.hidden_size, config.moe_intermediate_size
        self.limit = config.swiglu_limit
        self.gate_proj = nn.Linear(d, i, bias=False)
        self.up_proj = nn.Linear(d, i, bias=False)
        self.down_proj = nn.Linear(i, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(clamped_swiglu(self.gate_proj(x), self.up_proj(x), self.limit))


class MoE(nn.Module):
    """y = Σ_i g_i · Expert_i(x) + SharedExpert(x).

    Shapes: x (b, s, d), input_ids (b, s) -> (b, s, d).
    """

    def __init__(self, config: V4Config, mlp_type: str):
        super().__init__()
        self.gate = HashRouter(config) if mlp_type == "hash_moe" else Router(config)
        self.experts = Experts(config)
        self.shared_experts = SharedExpert(config)

    def forward(self, x: Tensor, input_ids: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        weights, experts = self.gate(tokens, input_ids.flatten())
        y = self.experts(tokens, weights, experts) + self.shared_experts(tokens)
        return y.view(x.shape)
