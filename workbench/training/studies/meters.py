"""What is looked at in a trained network: balance, gates, heads, logits, drafts.

Axes: b rows, s tokens, t tokens of all rows, e experts, k chosen experts, h heads.
"""

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from workbench.model import Sampling, Transformer, generate_speculative, observe
from workbench.model.attention import Attention
from workbench.model.balance import expert_load
from workbench.model.experts import Router
from workbench.model.norms import RMSNorm
from workbench.training.loader import Batch

IDLE = 0.1  # a head is idle where its keys get less than this; the sink has the rest
FLAT = 0.01  # a gate's slope below this is as good as none


@torch.no_grad()
def expert_loads(model: Transformer, batch: Batch) -> list[dict[str, float]]:
    """Of every layer the largest load over the mean, over all tokens and within a row (the rows' mean)."""
    seen, e = observe(model, batch.input_ids, sample_ids=batch.sample_ids), model.v4.n_routed_experts
    rows = []
    for layer in seen.layers.values():
        within = [float(expert_load(row, e).max()) for row in layer.expert_ids]
        rows.append(
            {
                "all": float(expert_load(layer.expert_ids.flatten(0, 1), e).max()),
                "within_row": sum(within) / len(within),
            }
        )
    return rows


@torch.no_grad()
def gate_slopes(model: Transformer, batch: Batch) -> Tensor:
    """The slope of the affinity in its logit, by differences, for every token, expert and router: (n,)."""
    slopes: list[Tensor] = []

    def note(router: nn.Module, inputs: tuple[Tensor, Any], _: Any) -> None:
        assert isinstance(router, Router)
        weight, step = router.weight.data, 1e-2
        logits = inputs[0] @ weight.T
        router.weight.data = torch.eye(len(weight))  # so that it takes the logits themselves
        slopes.append((router.affinity(logits + step) - router.affinity(logits - step)) / (2 * step))
        router.weight.data = weight

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, Router)]
    model(batch.input_ids, sample_ids=batch.sample_ids)
    for hook in hooks:
        hook.remove()
    return torch.cat([slope.flatten() for slope in slopes])


def attended(model: Transformer, batch: Batch) -> Tensor:
    """How much each head gives to keys rather than to its sink: (layers, h, b·s)."""
    seen = observe(model, batch.input_ids, sample_ids=batch.sample_ids)
    sinks = (layer.attention.sink for layer in seen.layers.values())
    return torch.stack([1 - rearrange(sink, "b h s -> h (b s)") for sink in sinks])


def logit_bound(model: Transformer) -> float:
    """What no attention logit can exceed: √c · the largest gain of a key's norm, over the layers.

    A normalised query is √c long, a key at most √c times its norm's largest gain, and the product is
    divided by √c. Infinite without norms.
    """
    bound = 0.0
    for module in model.modules():
        if isinstance(module, Attention):
            norms = [module.kv_norm] + ([module.compressor.kv_norm] if module.compressor else [])
            for norm in norms:
                gain = float(norm.weight.detach().abs().max()) if isinstance(norm, RMSNorm) else float("inf")
                bound = max(bound, (module.q_b_proj.out_features / module.heads) ** 0.5 * gain)
    return bound


def drafting(model: Transformer, prompts: Tensor, new_tokens: int, sampling: Sampling) -> dict[str, float]:
    """Drafts of one token by the MTP block: how many are accepted, tokens a pass, and the time they save.

    `guess` is how often the token that came most often would have been right: what an acceptance has to beat.
    Times are this process's processor time, without drafts over with.

    Shapes: prompts (b, s).
    """
    begun = time.process_time()
    plain = model.generate(prompts, new_tokens, sampling=sampling, generator=_lots(), stop_tokens=())
    middle = time.process_time()
    texts, found = generate_speculative(
        model, prompts, new_tokens, drafts=1, sampling=sampling, generator=_lots(), stop_tokens=()
    )
    end = time.process_time()
    tokens = torch.tensor([token for text in texts.tokens for token in text])
    assert all(len(text) == new_tokens for text in plain.tokens)
    return {
        "acceptance": found.accepted[0] / found.passes,
        "tokens_per_pass": found.tokens_per_pass,
        "guess": float(tokens.bincount().max() / len(tokens)),
        "time_ratio": (middle - begun) / (end - middle),
    }


def _lots() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def blocks(values: Sequence[float], size: int) -> list[float]:
    """Means of `size` values each; what is left over at the end makes a last one."""
    edges = [*range(0, len(values), size), len(values)]
    return [float(f"{sum(values[a:b]) / (b - a):.4f}") for a, b in pairwise(edges)]
