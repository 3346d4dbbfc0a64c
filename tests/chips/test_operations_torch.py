"""The lists of operations describe the torch modules: their weights, and the FLOPs that torch counts.

torch counts products only (mm, bmm), two FLOPs a multiply-add; the modules run two small products on what
the lists hold for vector work (collapsing and mixing residual streams), which are added by hand.
"""

import numpy as np
import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

import workbench as wb
from tests.oracles.latent_peers import small_config
from workbench.accounting import checkpoint
from workbench.accounting.tensors import tensors
from workbench.chips import Shard, Workload, operations
from workbench.config import CSA
from workbench.model import LatentTransformer, Transformer, hyper_connections
from workbench.model import attention as v4_attention
from workbench.model.latent import attention as latent_attention

PRESETS = ["tiny", "mini", "deepseek-v4-flash", "deepseek-v4-pro", "deepseek-v3", "deepseek-v3.2", "kimi-k2"]


def module_names(config):
    """Names of a network's parameters as accounting spells them: gate_up_proj is two tensors."""
    with torch.device("meta"):
        model = (Transformer if config.model_type == "deepseek_v4" else LatentTransformer)(config)
    names = set()
    for name, _ in model.named_parameters():
        name = name.removesuffix(".weight").removeprefix("model.")
        if name.endswith("gate_up_proj"):
            names |= {name.replace("gate_up_proj", kind) for kind in ("gate_proj", "up_proj")}
        else:
            # The indexer's LayerNorm of V3.2 has a weight and a bias under one module.
            names.add(f"{name}.weight" if name.endswith("indexer.k_norm") else name)
    return names


def listed_names(config):
    """The same from the operations: layer by layer, each a pipeline stage of its own."""
    workload = Workload(phase="train", context_tokens=64)
    names = set()
    for layer in range(config.num_hidden_layers):
        stage = operations(config, workload, Shard(first_layer=layer, last_layer=layer + 1))
        for operation in stage:
            if operation.part == "trunk":
                outside = operation.layer_type in ("head", "embedding")
                names |= {t if outside else f"layers.{layer}.{t}" for t in operation.tensors}
            else:
                names |= {t if t == "lm_head" else f"mtp.0.{t}" for t in operation.tensors}
    return names


@pytest.mark.parametrize("preset", PRESETS)
def test_the_operations_read_every_weight_of_the_network_and_no_other(preset):
    config = wb.load_config(preset)
    # The embedding is looked up, not multiplied: the list has its bytes and not its name.
    assert listed_names(config) | {"embed_tokens"} == module_names(config)


@pytest.mark.parametrize("preset", [*PRESETS, "qwen3-235b-a22b", "llama-3.1-405b", "qwen2.5-72b"])
def test_a_pass_that_visits_every_expert_reads_the_bytes_of_the_checkpoint(preset):
    config = wb.load_config(preset)
    drafts = dict(draft_tokens=1, acceptance=0.5) if config.num_nextn_predict_layers else {}
    read = operations(config, Workload(phase="decode", context_tokens=64, batch=10**6, **drafts))
    head = {row.kind: row.stored_bytes for row in tensors(config)}["lm_head"]
    buffers = sum(row.stored_bytes for row in tensors(config) if row.is_buffer)
    table = {row.kind: row.stored_bytes for row in tensors(config)}["embed_tokens"]
    twice = head if drafts else 0  # the draft block reads the trunk's head again
    total = sum(op.weight_bytes * op.count for op in read)
    assert total == pytest.approx(checkpoint(config).stored_bytes - buffers - table + twice, rel=1e-12)


def counted(model, ids, **options):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids, **options)
    counts = {str(op): flop for op, flop in counter.get_flop_counts()["Global"].items()}
    assert set(counts) <= {"aten.mm", "aten.bmm", "aten.baddbmm"}
    return sum(counts.values())


def product_flop(ops, part="trunk"):
    return sum(op.flop * op.count for op in ops if op.part == part)


def stream_flop(config, tokens):
    """Collapsing n streams and mixing them, at both sites of each layer, and the last collapse.

    What a sub-module gives is added in place, which torch does not count.
    """
    n, d = config.hc_mult, config.hidden_size
    return tokens * (2 * config.num_hidden_layers * (2 * n * d + 2 * n * n * d) + 2 * n * d)


def one_query_a_range(s, block, most):
    """Ranges of one query: no product then meets a key that a mask hides."""
    return ((i, i + 1, 1) for i in range(s))


def mixed_by_products(weights, x, onto=None):
    return torch.bmm(weights, x) if onto is None else onto.baddbmm_(weights, x)


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(v4_attention, "query_ranges", one_query_a_range)
    monkeypatch.setattr(v4_attention, "DENSE_FACTOR", 1)
    # The network writes the Sinkhorn sums as products; the list counts them as vector work.
    monkeypatch.setattr(hyper_connections, "sinkhorn", lambda logits, *_: logits.softmax(dim=-1))
    # The network adds streams up where a product would be small; the list counts all mixing as products.
    monkeypatch.setattr(hyper_connections, "_mixed", mixed_by_products)
    monkeypatch.setattr(latent_attention, "RANGE_ELEMENTS", 1)


def v4(**changes):
    return wb.load_config("tiny").replace(**changes)


@pytest.mark.parametrize(("before", "new", "batch"), [(61, 1, 2), (47, 4, 3), (64, 29, 1)])
def test_torch_counts_the_flop_of_v4_that_continues_a_cache(before, new, batch, exact):
    config = v4(num_attention_heads=6, index_n_heads=5)
    model = Transformer(config)
    cache = model.new_cache(batch, before + new)
    ids = torch.randint(config.vocab_size, (batch, before + new))
    with torch.no_grad():
        model(ids[:, :before], cache=cache)
    seen = counted(model, ids[:, before:], cache=cache)

    workload = Workload(
        phase="prefill", context_tokens=before + new, new_tokens=new, batch=batch, logits="all"
    )
    ops = operations(config, workload)
    # The sum of index scores over heads is a product too: one multiply-add where a score takes c_I.
    weighing = sum(op.flop * op.count for op in ops if op.kind == "index_scores") / config.index_head_dim
    assert seen == product_flop(ops) + weighing + stream_flop(config, batch * new)


@pytest.mark.parametrize("drafts", [0, 2])
def test_torch_counts_the_flop_of_a_v4_decoding_step(drafts, exact):
    config, batch, context = v4(), 3, 45
    model = Transformer(config)
    cache = model.new_cache(batch, context + drafts)
    ids = torch.randint(config.vocab_size, (batch, context + drafts))
    with torch.no_grad():
        model(ids[:, : context - 1], cache=cache)
    seen = counted(model, ids[:, context - 1 :], cache=cache)
    workload = Workload(
        phase="decode", context_tokens=context, batch=batch, draft_tokens=drafts, acceptance=0.5
    )
    ops = operations(config, workload)
    weighing = sum(op.flop * op.count for op in ops if op.kind == "index_scores") / config.index_head_dim
    assert seen == product_flop(ops) + weighing + stream_flop(config, batch * (1 + drafts))


def test_torch_counts_the_flop_of_a_v4_prompt_from_its_first_token(exact):
    config, tokens = v4(), 37
    seen = counted(Transformer(config), torch.randint(config.vocab_size, (1, tokens)))
    ops = operations(config, Workload(phase="prefill", context_tokens=tokens, logits="all"))
    # The first queries multiply the empty places of their window, too.
    window, position = config.sliding_window, np.arange(1, tokens + 1)
    empty = np.maximum(window - position, 0).sum()
    padding = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * empty
    # Where no more entries are visible than are read, all are read and none is scored.
    entries = position // 4
    scored = entries[entries > config.index_topk].sum() * config.index_n_heads
    layers = config.attention_types.count(CSA)
    listed = sum(op.flop * op.count for op in ops if op.kind == "index_scores")
    scores = layers * scored * 2 * (config.index_head_dim + 1)
    assert seen == product_flop(ops) - listed + scores + padding + stream_flop(config, tokens)


@pytest.mark.parametrize(
    ("model_type", "batch", "context"), [("deepseek_v3", 3, 40), ("deepseek_v32", 2, 31)]
)
def test_torch_counts_the_flop_of_a_latent_decoding_step(model_type, batch, context, exact):
    config = small_config(model_type)
    model = LatentTransformer(config)
    cache = model.new_cache(batch, context)
    ids = torch.randint(config.vocab_size, (batch, context))
    model(ids[:, :-1], cache=cache)
    seen = counted(model, ids[:, -1:], cache=cache)
    ops = operations(config, Workload(phase="decode", context_tokens=context, batch=batch))
    weighing = sum(op.flop * op.count for op in ops if op.kind == "index_scores") / (
        config.index_head_dim or 1
    )
    assert seen == product_flop(ops) + weighing


def test_torch_counts_the_flop_of_a_v3_prompt(exact):
    config = small_config("deepseek_v3")
    seen = counted(LatentTransformer(config), torch.randint(config.vocab_size, (2, 29)))
    ops = operations(config, Workload(phase="prefill", context_tokens=29, batch=2, logits="all"))
    assert seen == product_flop(ops)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_torch_counts_the_flop_of_transformers_qwen3_moe(phase):
    sizes = dict(
        vocab_size=83, hidden_size=36, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
        head_dim=10, moe_intermediate_size=14, num_experts=8, num_experts_per_tok=3, intermediate_size=20,
    )  # fmt: skip
    peer_config = transformers.Qwen3MoeConfig(
        **sizes, attn_implementation="eager", experts_implementation="eager", tie_word_embeddings=False
    )
    peer = transformers.Qwen3MoeForCausalLM(peer_config).eval()
    config = wb.ModelConfig.from_dict({**sizes, "model_type": "qwen3_moe"})
    ids = torch.randint(83, (2, 17))
    if phase == "prefill":
        seen = counted(peer, ids)
        ops = operations(config, Workload(phase="prefill", context_tokens=17, batch=2, logits="all"))
        # It multiplies the masked half as well.
        masked = 2 * 17 * 16 / 2 * 4 * 6 * 10 * 3
    else:
        with torch.no_grad():
            past = peer(ids[:, :-1], use_cache=True).past_key_values
        seen = counted(peer, ids[:, -1:], past_key_values=past)
        ops = operations(config, Workload(phase="decode", context_tokens=17, batch=2))
        masked = 0
    # transformers multiplies the angles of the rotary embedding as a product: positions × frequencies.
    rotary = seen - product_flop(ops) - masked
    assert 0 <= rotary <= 2 * 2 * 17 * 5


def test_torch_counts_the_flop_of_linear_maps_in_a_v4_training_step(exact):
    config, batch, tokens = v4(), 2, 21
    model = Transformer(config)
    ids = torch.randint(config.vocab_size, (batch, tokens))
    with FlopCounterMode(display=False) as counter:
        model.loss(ids, mtp_weight=0.3).backward()
    counts = {str(op): flop for op, flop in counter.get_flop_counts()["Global"].items()}
    seen = counts["aten.mm"]
    ops = operations(config, Workload(phase="train", context_tokens=tokens, batch=batch))
    listed = {
        stage: sum(
            op.flop * op.count
            for op in ops
            if op.kind in ("gemm", "grouped_gemm") and op.stage == stage
            and not op.name.startswith(("o_a_proj", "lm_head"))
        )
        for stage in ("forward", "backward")
    }  # fmt: skip
    # The loss drops the positions that predict past the end: one of the trunk, two of the MTP block.
    # The gradient of its weight is added in place, which torch does not count.
    head = 2 * 2 * config.vocab_size * config.hidden_size * batch * ((tokens - 1) + (tokens - 2))
    # So is the gradient that the streams get from the maps to their 2n + n² mixing weights: two sites a
    # layer, and n weights at the end of trunk and MTP block.
    n, layers = config.hc_mult, config.num_hidden_layers + 1
    outputs = 2 * layers * (2 * n + n * n) + 2 * n
    in_place = 2 * batch * tokens * outputs * n * config.hidden_size
    assert seen == listed["forward"] + listed["backward"] + head - in_place
