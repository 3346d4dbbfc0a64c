"""One more token of one text, in plain numpy: the step of decoding on a CPU.

A single token's arithmetic is a few hundred operations on short vectors. There PyTorch's work around an
operation takes longer than the operation, and numpy's a third of that. So this file writes the forward
pass down once more for s = 1, in the report's order, on the weights and caches that the modules hold:
they are shared, not copied. Nothing is left to sort, cut or hide: every key that is read is seen.

Report: sections 2.1-2.3. Axes: n streams, d hidden_size, h heads, c channels, t keys, i expert width.
"""

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._python_dispatch import _get_current_dispatch_mode

from workbench.model.attention import Attention, AttentionCore, CSACompressor, GroupedLinear
from workbench.model.cache import Cache, CompressedState, LayerState
from workbench.model.compressor import Compressor
from workbench.model.experts import Experts, HashRouter, MoE, Router, SharedExpert
from workbench.model.hyper_connections import HyperConnection, HyperHead
from workbench.model.indexer import Indexer, IndexerScorer
from workbench.model.layer import DecoderLayer
from workbench.model.norms import RMSNorm
from workbench.model.rope import RotaryEmbedding
from workbench.model.sinkhorn import sinkhorn_of_one
from workbench.model.trunk import Trunk

if TYPE_CHECKING:
    from workbench.model.transformer import Transformer

_steps: "WeakKeyDictionary[Transformer, OneToken]" = WeakKeyDictionary()
Array = np.ndarray

# What is written down here. A module of another class (quantised, studied) computes something else.
KNOWN = {
    *(Attention, AttentionCore, CSACompressor, Compressor, DecoderLayer, Experts, GroupedLinear, HashRouter),
    *(HyperConnection, Indexer, IndexerScorer, MoE, RMSNorm, RotaryEmbedding, Router, SharedExpert),
    *(HyperHead, Trunk, nn.Embedding, nn.Linear, nn.ModuleList),
}


def one_token(model: "Transformer", cache: Cache) -> "OneToken | None":
    """The step for this model and cache, or None where only the modules compute what is wanted.

    That is: on another device, in another dtype, with more rows, with blocks out of order, with a module
    hooked or exchanged, and while somebody watches torch's operations (a counter of FLOPs).
    """
    if cache.batch_size > 1 or cache.blocks.rows[0] != list(range(len(cache.blocks.rows[0]))):
        return None
    if _get_current_dispatch_mode() is not None or _has_any_global_hook():
        return None
    step = _steps.get(model)
    if step is None or not step.is_current():
        step = _steps[model] = OneToken(model)
    return step if step.is_plain else None


class OneToken:
    """A model's trunk as a function of one token.

    `is_plain` says whether this file describes the model. `is_current` says, quickly, whether that answer
    and the arrays still hold: no module hooked or exchanged since, no tensor replaced or moved.
    """

    def __init__(self, model: "Transformer"):
        trunk = model.model
        self.v4, self.modules = model.v4, list(trunk.modules())
        self.classes = list(map(type, self.modules))
        self.hooks = [h for m in self.modules for h in (m._forward_hooks, m._forward_pre_hooks)]
        self.children = [(m._modules, name) for m in self.modules for name in m._modules]
        self.slots = [(s, name) for m in self.modules for s in (m._parameters, m._buffers) for name in s]
        self.identity, self.is_hooked = self._identity(), any(self.hooks)
        tensors = [slot[name] for slot, name in self.slots]
        self.is_plain = (
            not self.is_hooked
            and KNOWN.issuperset(self.classes)
            and all(
                t is None or (t.device.type == "cpu" and t.dtype in (torch.float32, torch.long))
                for t in tensors
            )
        )
        if self.is_plain:
            self.embed, self.rotary = _arrays(trunk.embed_tokens), _arrays(trunk.rotary_emb)
            self.layers = _arrays(trunk.layers)

    def _identity(self) -> list[int]:
        """The modules, and where the tensors lie."""
        places = [t.data_ptr() if (t := slot[name]) is not None else 0 for slot, name in self.slots]
        return places + [id(slot[name]) for slot, name in self.children]

    def is_current(self) -> bool:
        return (
            any(self.hooks) == self.is_hooked
            and list(map(type, self.modules)) == self.classes
            and self._identity() == self.identity
        )

    def __call__(self, cache: Cache, token: int) -> Tensor:
        """The streams of the next token of the cache's only row, (1, 1, n, d); the cache holds it then.

        The caller prepares the cache before and advances it afterwards.
        """
        here = Here(self, cache)
        streams = np.repeat(self.embed[token][None], self.v4.hc_mult, axis=0)
        with np.errstate(over="ignore"):  # exp of a large number is inf, and its inverse the wanted 0
            for layer, state in zip(self.layers, cache.layers, strict=True):
                streams = _layer(layer, streams, token, here, state)
        return torch.from_numpy(streams)[None, None]


def _arrays(module: nn.Module) -> Any:
    """A module's tensors as arrays under its own names; one that holds a weight alone becomes the weight."""
    if isinstance(module, nn.ModuleList):
        return [_arrays(child) for child in module]
    tensors = {**module._parameters, **module._buffers}
    named = {name: tensor.detach().numpy() for name, tensor in tensors.items() if tensor is not None}
    if type(module) in (nn.Linear, nn.Embedding, GroupedLinear, RMSNorm):
        return named["weight"]
    children = {name: _arrays(child) for name, child in module.named_children()}
    return SimpleNamespace(module=module, **named, **children)


class Here:
    """Where the token stands: its position, its rotations, and the reach of its window."""

    def __init__(self, step: OneToken, cache: Cache):
        self.frequencies = {"main": step.rotary.main, "compress": step.rotary.compress}
        self.v4, self.position, self.stored = step.v4, cache.lengths[0], cache.stored[0]
        self.first_key = max(cache.origins[0], self.position - step.v4.sliding_window + 1)
        self.rotations = {rule: self.rotation(self.position, rule) for rule in self.frequencies}

    def rotation(self, position: int, rule: str) -> Any:
        angle = np.float32(position) * self.frequencies[rule]
        rotation = np.empty(angle.shape, np.complex64)
        rotation.real, rotation.imag = np.cos(angle), np.sin(angle)
        return rotation


def _layer(layer: Any, streams: Array, token: int, here: Here, state: LayerState) -> Array:
    eps = here.v4.rms_norm_eps
    pre, post, comb = _mixing(layer.attn_hc, streams, here)
    y = _attention(layer.self_attn, _norm(pre @ streams, layer.input_layernorm, eps), here, state)
    streams = post[:, None] * y + comb.T @ streams
    pre, post, comb = _mixing(layer.ffn_hc, streams, here)
    y = _moe(layer.mlp, _norm(pre @ streams, layer.post_attention_layernorm, eps), token)
    mixed: Array = post[:, None] * y + comb.T @ streams
    return mixed


def _norm(x: Array, weight: Array, eps: float) -> Array:
    return x * (weight * (1 / math.sqrt(float(x @ x) / len(x) + eps)))


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _rotate(x: Array, rotation: Any) -> Array:
    """Turn the last channels of a fresh x (..., c), in place."""
    turned = x[..., -2 * len(rotation) :].view(np.complex64)
    turned *= rotation
    return x


def _mixing(hc: Any, streams: Array, here: Here) -> tuple[Array, Array, Array]:
    """Eqs. 3-8: pre (n,), post (n,), comb (n source, n destination)."""
    n, flat = len(streams), streams.reshape(-1)
    rho = 1 / math.sqrt(float(flat @ flat) / len(flat) + here.v4.rms_norm_eps)
    logits = hc.base + (hc.fn @ flat) * rho * hc.scale[hc.part]
    gates = _sigmoid(logits[: 2 * n])
    comb = sinkhorn_of_one(logits[2 * n :].reshape(n, n), hc.module.iterations, hc.module.hc_eps)
    return gates[:n] + hc.module.hc_eps, 2 * gates[n:], comb


def _attention(a: Any, x: Array, here: Here, state: LayerState) -> Array:
    """Eqs. 13-27 for one query: all its keys in one matrix, the sink beside them."""
    v4, rotation = here.v4, here.rotations[a.module.rule]
    latent = _norm(a.q_a_proj @ x, a.q_a_norm, v4.rms_norm_eps)
    q = (a.q_b_proj @ latent).reshape(v4.num_attention_heads, -1)
    scale = v4.head_dim**-0.5 / np.sqrt((q * q).sum(axis=1) / v4.head_dim + v4.rms_norm_eps)
    q = _rotate(q * scale[:, None], rotation)
    kv = _rotate(_norm(a.kv_proj @ x, a.kv_norm, v4.rms_norm_eps), rotation)
    window = state.window.numpy()[0]
    keys = [_recall(window, here.first_key, here.position), kv[None]]
    window[here.position % len(window)] = kv
    if state.compressed is not None:
        keys.append(_entries(a.compressor, x, latent, here, state))
    k = np.concatenate(keys)

    logits = q @ k.T
    top = np.maximum(logits.max(axis=1), a.sinks)[:, None]
    p = np.exp(logits - top)
    p /= p.sum(axis=1, keepdims=True) + np.exp(a.sinks[:, None] - top)
    o = _rotate(p @ k, rotation.conj())
    groups = v4.o_groups
    y = a.o_a_proj.reshape(groups, v4.o_lora_rank, -1) @ o.reshape(groups, -1, 1)
    out: Array = a.o_b_proj @ y.reshape(-1)
    return out


def _recall(ring: Array, first: int, end: int) -> Array:
    """What a ring holds of positions first..end-1."""
    return ring.take(np.arange(first, end) % len(ring), axis=0)


def _entries(compressor: Any, x: Array, latent: Array, here: Here, state: LayerState) -> Array:
    """The compressed entries that the query reads: all it may see, or the indexer's choice."""
    assert state.compressed is not None
    seen = _compress(compressor, x, here, state.compressed)
    if state.index is None:
        return seen
    indexer, v4 = compressor.indexer, here.v4
    keys = _compress(indexer, x, here, state.index)
    topk = indexer.module.topk
    if len(keys) <= topk:
        return seen
    q = _rotate((indexer.q_b_proj @ latent).reshape(v4.index_n_heads, -1), here.rotations["compress"])
    weights = (indexer.scorer.weights_proj @ x) * indexer.scorer.module.scale
    scores = weights @ np.maximum(q @ keys.T, 0)  # eq. 16
    return seen[np.argpartition(scores, -topk)[-topk:]]


def _compress(compressor: Any, x: Array, here: Here, state: CompressedState) -> Array:
    """Take in the token, pool its window if it is the last one's (eqs. 9-12, 20-23); the visible entries."""
    module, position, tail = compressor.module, here.position, state.tail.numpy()[0]
    m, c = module.ratio, module.width
    raw = np.concatenate((compressor.kv_proj @ x, compressor.gate_proj @ x))
    pool = state.pool.numpy().reshape(-1, c)
    entry = position // m
    if (position + 1) % m == 0 and position >= here.stored:
        line = np.concatenate((_recall(tail, position + 1 - m * (1 + module.overlaps), position), raw[None]))
        kv, gate = np.split(line, 2, axis=1)
        own = gate[-m:] + compressor.position_bias
        if module.overlaps:  # the window before feeds the first series, its own window the second
            before = gate[:m, :c] + compressor.position_bias[:, :c] if entry else np.full((m, c), -np.inf)
            kv, own = np.concatenate((kv[:m, :c], kv[m:, c:])), np.concatenate((before, own[:, c:]))
        weight = np.exp(own - own.max(axis=0))
        pooled = ((weight / weight.sum(axis=0)) * kv).sum(axis=0).astype(np.float32)
        pooled = _norm(pooled, compressor.kv_norm, here.v4.rms_norm_eps)
        pool[entry] = _rotate(pooled, here.rotation(entry * m, "compress"))
    tail[position % len(tail)] = raw
    return pool[: (position + 1) // m]


def _moe(mlp: Any, x: Array, token: int) -> Array:
    """The shared expert and the chosen ones, each a clamped SwiGLU."""
    gate, shared, experts = mlp.gate, mlp.shared_experts, mlp.experts
    affinity = np.sqrt(np.maximum(np.logaddexp(0, gate.weight @ x), np.finfo(np.float32).tiny))
    if isinstance(gate.module, HashRouter):
        chosen = gate.tid2eid[token]
    else:
        k = gate.module.topk
        chosen = np.argpartition(affinity + gate.e_score_correction_bias, -k)[-k:]
    weights = affinity[chosen]
    weights = weights / (weights.sum() + 1e-20) * gate.module.scaling
    limit = experts.module.limit
    y: Array = shared.down_proj @ _swiglu(shared.gate_proj @ x, shared.up_proj @ x, limit)
    for expert, weight in zip(chosen.tolist(), weights.tolist(), strict=True):
        hidden = experts.gate_up_proj[expert] @ x
        half = len(hidden) // 2
        y += experts.down_proj[expert] @ (_swiglu(hidden[:half], hidden[half:], limit) * weight)
    return y


def _swiglu(gate: Array, up: Array, limit: float) -> Array:
    gate = np.minimum(gate, limit)
    return gate * _sigmoid(gate) * np.minimum(np.maximum(up, -limit), limit)
