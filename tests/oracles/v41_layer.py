"""V4.1, token by token in float64, written from the equations. Slow and obvious.

W maps the model's parameter names to float64 tensors; c is the configuration; a text is one sample of s
tokens with compressed ids equal to ids. What V4 and V4.1 share is V4's oracle.
"""

import numpy as np
import torch
from torch import Tensor

from tests.oracles.v4_layer import frequencies, mixing, moe, rms, rope


def below(W, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in W.items() if name.startswith(prefix)}


def sieve(start: int, count: int) -> list[int]:
    """The first `count` primes from `start` on."""
    end = start + 50 * count + 100
    is_prime = np.ones(end, dtype=bool)
    is_prime[:2] = False
    for i in range(2, int(end**0.5) + 1):
        is_prime[i * i :: i] = False
    return [int(n) for n in np.flatnonzero(is_prime) if n >= start][:count]


def rows_of(ids: list[int], t: int, c, module: int) -> list[int]:
    """The table rows of one token, order by order and head by head; a picture ends what is seen."""
    heads, orders = c.engram_n_heads, c.engram_max_ngram_size - 1
    primes = sieve(c.engram_vocab_size, len(c.engram_layer_ids) * orders * heads)
    mine = primes[module * orders * heads : (module + 1) * orders * heads]
    bound = (2**63 - 1) // c.engram_compressed_vocab_size // 2
    draws = np.random.default_rng(10007 * c.engram_layer_ids[module]).integers(
        0, bound, c.engram_max_ngram_size
    )
    factors = [2 * int(r) + 1 for r in draws]
    line, blocked = [], ids[t] == c.image_token_id
    for back in range(c.engram_max_ngram_size):
        blocked = blocked or t < back or ids[t - back] == c.image_token_id
        line.append(c.engram_pad_id if blocked else ids[t - back])
    rows, hashed, offset = [], line[0] * factors[0], 0
    for n in range(orders):
        hashed ^= line[n + 1] * factors[n + 1]
        for head in range(heads):
            prime = mine[n * heads + head]
            rows.append(hashed % prime + offset)
            offset += prime
    return rows


def engram(X: Tensor, ids: list[int], W, c, module: int) -> Tensor:
    X, d, n = X.clone(), c.hidden_size, c.hc_mult
    for t in range(len(ids)):
        if ids[t] == c.image_token_id:
            continue
        found = torch.cat([W["embedding.weight"][row] for row in rows_of(ids, t, c, module)])
        both = (W["kv_proj.weight"] @ found).reshape(n + 1, d)
        for j in range(n):
            x, k = X[t, j].clone(), both[j]
            sizes = [(v.pow(2).mean() + c.rms_norm_eps).sqrt() for v in (x, k)]
            dot = sum(x * W["q_weight"][j] * W["k_weight"][j] * k) / (sizes[0] * sizes[1] * d**0.5)
            root = max(abs(float(dot)), 1e-6) ** 0.5 * (1 if dot > 0 else -1)
            X[t, j] = x + both[n] / (1 + np.exp(-root))
    return X


def entries_of(x: Tensor, W, m: int, c, freqs) -> tuple[list[Tensor], list[Tensor]]:
    entries, keys = [], []
    for w in range(len(x) // m):
        tokens = range(m * w, m * w + m)
        e = torch.stack([W["kv_proj.weight"] @ x[t] for t in tokens])
        if m > 1:
            gate = torch.stack([W["gate_proj.weight"] @ x[t] for t in tokens]).softmax(dim=0)
            e = gate * e
        e = rms(e.sum(dim=0), c, W["kv_norm.weight"])
        entries.append(rope(e, m * w, freqs))
        keys.append(rope(rms(W["index_k_proj.weight"] @ e, c, W["index_k_norm.weight"]), m * w, freqs))
    return entries, keys


def scores_of(x_t: Tensor, latent: Tensor, p: int, keys: list[Tensor], W, c, m: int, freqs) -> list[float]:
    """Of the entries that the query at p sees."""
    q = (W["chooser.q_b_proj.weight"] @ latent).reshape(c.index_n_heads, c.index_head_dim)
    q = [rope(row, p, freqs) for row in q]
    head = (W["chooser.scorer.weights_proj.weight"] @ x_t) * (c.index_n_heads * c.index_head_dim) ** -0.5
    return [
        sum(float(head[h]) * max(float(q[h] @ keys[w]), 0.0) for h in range(c.index_n_heads))
        for w in range((p + 1) // m)
    ]


def pool_of(scores: list[float], c) -> list[int]:
    """The entries of the best blocks, the newest block among them."""
    size = c.candidate_block_size
    blocks = [max(scores[i : i + size]) for i in range(0, len(scores), size)]
    if blocks:
        blocks[-1] = float("inf")
    best = sorted(range(len(blocks)), key=lambda i: -blocks[i])[: c.candidate_topk_blocks]
    return [w for w in range(len(scores)) if w // size in best]


def attention(x: Tensor, W, c, layer: int, far: dict) -> Tensor:
    m, mode = c.layer_ratios[layer], c.modes[layer]
    freqs, heads, width = frequencies(c, compressed=m > 0), c.num_attention_heads, c.head_dim
    latents = [rms(W["q_a_proj.weight"] @ x_t, c, W["q_a_norm.weight"]) for x_t in x]
    kv = [rope(rms(W["kv_proj.weight"] @ x_t, c, W["kv_norm.weight"]), t, freqs) for t, x_t in enumerate(x)]
    if mode == "full":
        far["entries"], far["keys"] = entries_of(x, below(W, "source."), m, c, freqs)
        far["pool"] = [range(len(x))] * len(x)
    if mode in ("full", "reindex"):
        far["chosen"] = []
        for p in range(len(x)):
            scores = scores_of(x[p], latents[p], p, far["keys"], W, c, m, freqs)
            allowed = [w for w in range(len(scores)) if w in far["pool"][p]]
            far["chosen"].append(sorted(allowed, key=lambda w, s=scores: -s[w])[: c.index_topk])
            if layer == c.candidate_source_layer_id:
                far.setdefault("next pool", []).append(pool_of(scores, c))
        if layer == c.candidate_source_layer_id:
            far["pool"] = far.pop("next pool")
    out = []
    for p in range(len(x)):
        seen = [kv[j] for j in range(max(0, p - c.sliding_window + 1), p + 1)]
        if m:
            seen += [far["entries"][w] for w in far["chosen"][p]]
        q = (W["q_b_proj.weight"] @ latents[p]).reshape(heads, width)
        o = []
        for h in range(heads):
            query = rope(q[h], p, freqs)
            logits = torch.stack([query @ k / width**0.5 for k in seen] + [W["sinks"][h]])
            P = logits.softmax(dim=0)[:-1]
            o.append(rope(sum(P[j] * seen[j] for j in range(len(seen))), -p, freqs))
        out.append(leave_heads(o, W, c))
    return torch.stack(out)


def leave_heads(o: list[Tensor], W, c) -> Tensor:
    A, per_group, rank = W["o_a_proj.weight"], c.num_attention_heads // c.o_groups, c.o_lora_rank
    z = [
        A[g * rank : (g + 1) * rank] @ torch.cat(o[g * per_group : (g + 1) * per_group])
        for g in range(c.o_groups)
    ]
    return W["o_b_proj.weight"] @ torch.cat(z)


def around(
    X: Tensor, pre: list[Tensor], W, site: str, norm: str, c, submodule
) -> tuple[Tensor, list[Tensor]]:
    """One site: the input by the mix of the site before; the output by this one's. -> streams, next mix."""
    weights = [mixing(X_t, W, site, c) for X_t in X]
    x = [sum(pre[t][j] * X[t, j] for j in range(c.hc_mult)) for t in range(len(X))]
    y = submodule(torch.stack([rms(x_t, c, W[f"{norm}.weight"]) for x_t in x]))
    out = torch.zeros_like(X)
    for t, (_, post, comb) in enumerate(weights):
        for k in range(c.hc_mult):
            out[t, k] = post[k] * y[t] + sum(comb[j, k] * X[t, j] for j in range(c.hc_mult))
    return out, [a for a, _, _ in weights]


def experts(x: Tensor, ids: list[int], W, c) -> Tensor:
    """V4's, with the pictures' own bias where a token is of one."""
    vl = {**W, "mlp.gate.e_score_correction_bias": W.get("mlp.gate.bias_vl")}
    return torch.cat(
        [moe(x[t : t + 1], [i], vl if i == c.image_token_id else W, c) for t, i in enumerate(ids)]
    )


def layer(X: Tensor, pre, ids: list[int], W, c, number: int, far: dict) -> tuple[Tensor, list[Tensor]]:
    if number in c.engram_layer_ids:
        X = engram(X, ids, below(W, "engram."), c, c.engram_layer_ids.index(number))
    attend = lambda x: attention(x, below(W, "self_attn."), c, number, far)  # noqa: E731
    X, pre = around(X, pre, W, "attn_hc", "input_layernorm", c, attend)
    return around(X, pre, W, "ffn_hc", "post_attention_layernorm", c, lambda x: experts(x, ids, W, c))


def start(x: Tensor, c) -> tuple[Tensor, list[Tensor]]:
    """The embeddings on every stream, and the first mix: stream 0 alone."""
    first = torch.zeros(c.hc_mult, dtype=torch.float64)
    first[0] = 1
    return torch.stack([x] * c.hc_mult, dim=1), [first] * len(x)


def finish(X: Tensor, pre, norm: Tensor, c) -> Tensor:
    return torch.stack(
        [rms(sum(pre[t][j] * X[t, j] for j in range(c.hc_mult)), c, norm) for t in range(len(X))]
    )


def forward(ids: list[int], W, c, pictures: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Logits (s, v) and the draft's target features (s, l·d)."""
    x = torch.stack([W["model.embed_tokens.weight"][i] for i in ids])
    if pictures is not None:
        places = [t for t, i in enumerate(ids) if i == c.image_token_id]
        for t, vector in zip(places, pictures, strict=True):
            x[t] = vector
    X, pre = start(x, c)
    far: dict = {}
    targets = []
    for number in range(c.num_hidden_layers):
        if number in c.dspark_target_layer_ids:
            targets.append(X.mean(dim=1))
        X, pre = layer(X, pre, ids, below(W, f"model.layers.{number}."), c, number, far)
    y = finish(X, pre, W["model.norm.weight"], c)
    return y @ W["lm_head.weight"].T, torch.cat(targets, dim=1)


def draft(targets: Tensor, first: int, W, c) -> Tensor:
    """What the slots hold, before the norm (i, d); targets (p + 1, l·d) of all tokens up to p."""
    D, p = below(W, "mtp."), len(targets) - 1
    m = [rms(D["main_proj.weight"] @ f, c, D["main_norm.weight"]) for f in targets]
    ids = [first] + [c.dspark_noise_token_id] * (c.dspark_block_size - 1)
    X, pre = start(torch.stack([W["model.embed_tokens.weight"][i] for i in ids]), c)
    freqs, heads = frequencies(c, compressed=False), c.num_attention_heads
    for number in range(c.num_nextn_predict_layers):
        B = below(D, f"blocks.{number}.")
        A = below(B, "self_attn.")

        def attend(x, A=A):
            def key(v, t):
                return rope(rms(A["kv_proj.weight"] @ v, c, A["kv_norm.weight"]), t, freqs)

            seen = [key(m[t], t) for t in range(max(0, p + 1 - c.sliding_window), p + 1)]
            seen += [key(x[i], p + 1 + i) for i in range(len(x))]
            out = []
            for i, x_i in enumerate(x):
                latent = rms(A["q_a_proj.weight"] @ x_i, c, A["q_a_norm.weight"])
                q, o = (A["q_b_proj.weight"] @ latent).reshape(heads, -1), []
                for h in range(heads):
                    query = rope(q[h], p + 1 + i, freqs)
                    logits = [query @ k / c.head_dim**0.5 for k in seen] + [A["sinks"][h]]
                    P = torch.stack(logits).softmax(dim=0)[:-1]
                    o.append(rope(sum(P[j] * seen[j] for j in range(len(seen))), -(p + 1 + i), freqs))
                out.append(leave_heads(o, A, c))
            return torch.stack(out)

        X, pre = around(X, pre, B, "attn_hc", "input_layernorm", c, attend)
        X, pre = around(
            X, pre, B, "ffn_hc", "post_attention_layernorm", c, lambda x, B=B: moe(x, ids, B, c.draft)
        )
    return torch.stack([sum(pre[i][j] * X[i, j] for j in range(c.hc_mult)) for i in range(len(ids))])
