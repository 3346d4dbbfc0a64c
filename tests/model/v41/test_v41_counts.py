"""What V4.1 costs, against its report, torch's own counter and loops."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.oracles.v41_small import small_config, small_model
from workbench.model.v41 import V41Config, counts, load_v41
from workbench.model.v41.v41_config import FOLDER

V41 = load_v41()


def test_sizes_are_the_published_ones():
    parts = counts.parameters(V41)
    assert round(counts.backbone(V41) / 1e9) == 552
    assert int(parts["memory tables"] / 1e9) == 196
    assert round(counts.active(V41, "decode") / 1e9) == 16
    assert round(counts.active(V41, "prefill") / 1e9) == 8
    assert counts.cache_bytes_per_token(V41) == 890


def test_tensors_have_the_published_shapes():
    with torch.device("meta"):
        from workbench.model.v41 import V41Transformer

        shapes = {name: tuple(t.shape) for name, t in V41Transformer(V41).named_parameters()}
    assert shapes["mtp.markov_embed.weight"] == shapes["mtp.markov_proj.weight"] == (129280, 256)
    assert shapes["mtp.confidence_proj.weight"] == (1, 5376)
    assert shapes["mtp.main_proj.weight"] == (5120, 15360)
    assert shapes["model.layers.14.engram.kv_proj.weight"] == (25600, 6144)
    assert shapes["model.layers.1.attn_hc.fn"] == (24, 20480)
    owners = {name.split(".")[2] for name in shapes if ".source." in name}
    choosers = {name.split(".")[2] for name in shapes if ".chooser." in name}
    assert owners == {"2", "8", "14", "20"}
    assert choosers == {"2", "8", "14", "20", "24", "28", "32", "36"}


def test_parts_add_up_to_the_model():
    model, _ = small_model()
    config = model.config
    total = sum(p.numel() for p in model.parameters())
    assert sum(counts.parameters(config).values()) == total
    assert counts.backbone(config) < total
    assert counts.active(config, "prefill") < counts.active(config, "decode") < counts.backbone(config)


def test_matrix_products_are_those_torch_counts():
    model, generator = small_model()
    config, n = model.config, 26
    ids = torch.randint(59, (1, n), generator=generator)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    counted = counter.get_flop_counts()["Global"]
    mm = sum(flop for op, flop in counted.items() if str(op) == "aten.mm")
    # The grouped output map is a batched product, and the draft does not run.
    rows = [
        row
        for row in counts.weights(config)
        if row.is_matmul and row.part != "draft" and "o_a_proj" not in row.name
    ]
    expected = sum(
        2 * row.active * (n // config.layer_ratios[row.layer] if ".index_k_" in row.name else n)
        for row in rows
    )
    # Sinkhorn's sums over rows and columns are written as products.
    sinkhorn = (config.hc_mult**2 + 1) ** 2 * (2 * config.hc_sinkhorn_iters - 1)
    assert mm == expected + 2 * n * 2 * config.num_hidden_layers * sinkhorn


@pytest.mark.parametrize("replay", [None, 5, 1000])
def test_the_work_of_a_prompt_is_that_of_its_tokens_one_by_one(replay):
    config, n = small_config(), 61
    half, kept = config.num_hidden_layers // 2, min(n, replay or config.sliding_window)
    linear = 0
    for row in counts.weights(config):
        if row.is_matmul and row.layer is not None:
            is_first = row.layer < half or (row.layer == half and ".source." in row.name)
            linear += 2 * row.active * (n if is_first else kept)
    distant = 0
    for layer, ratio in enumerate(config.layer_ratios):
        for i in range(1, n + 1):
            if layer >= half and i <= n - kept:
                continue
            seen = min(i, config.sliding_window) + (min(i // ratio, config.index_topk) if ratio else 0)
            distant += 4 * config.num_attention_heads * config.head_dim * seen
            if layer in config.index_source_layer_ids:
                distant += 2 * config.index_n_heads * config.index_head_dim * (i // ratio)
    np.testing.assert_allclose(counts.prefill_flop(config, n, replay=replay), linear + distant)
    both = counts.prefill_flop(config, [n, 9], replay=replay)
    assert both[0] == counts.prefill_flop(config, n, replay=replay)


def test_an_unknown_phase_is_refused():
    with pytest.raises(ValueError, match="phase is 'train'; choose 'prefill' or 'decode'"):
        counts.active(V41, "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 7}, "num_hidden_layers is 7; encoder and decoder are halves"),
        ({"compress_ratios": (0, 2)}, r"compress_ratios is \(0, 2\); it needs an entry for each of 8"),
        ({"compress_ratios": (0, 2, 2, 2, 1, 1, 1, 1, 1, 0)}, "draft blocks have 0"),
        ({"kv_source_layer_ids": (3, 4)}, "each compressing layer needs a source"),
        ({"kv_source_layer_ids": (1, 3)}, "each compressing layer needs a source"),
        ({"kv_source_layer_ids": (1, 3, 4, 5)}, "entries of its first layer alone: name layer 4 last"),
        ({"index_source_layer_ids": (1, 3, 6)}, "each of kv_source_layer_ids"),
        ({"candidate_topk_blocks": 1}, "has to hold index_topk=3 entries: raise it"),
        ({"candidate_source_layer_id": 3}, "the pool is the decoder's: name layer 4"),
        ({"engram_layer_ids": (1, 5)}, "written in the encoder: below layer 4"),
        ({"dspark_target_layer_ids": (3, 7)}, "decoder layers: numbers from 4 to 7"),
        ({"num_experts_per_tok": 6}, "n_routed_experts is 5: lower it"),
    ],
)
def test_numbers_that_break_a_rule_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"V41Config: .*{message}"):
        small_config(**changes)


def test_every_file_is_read_and_an_odd_key_is_refused(tmp_path):
    assert load_v41("tiny-v4.1").modes[4:] == ("full", "reuse", "reindex", "reuse")
    assert V41.modes.count("reuse") == 40 - 2 - 8
    path = tmp_path / "x.json"
    text = (FOLDER / "tiny-v4.1.json").read_text(encoding="utf-8")
    path.write_text(text.replace('"head_dim"', '"head_dims"'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"lacks \['head_dim'\] and has the unknown \['head_dims'\]"):
        V41Config.from_json(path)
    with pytest.raises(ValueError, match="name 'v4' is unknown; choose one of"):
        load_v41("v4")
    assert dataclasses.asdict(V41)["engram_compressed_vocab_size"] == 99_092


def test_each_layer_reads_the_last_owner_at_or_before_it():
    rows = counts.layer_rows(V41)
    assert [row["entries"] for row in rows] == [None] * 2 + [2] * 6 + [8] * 6 + [14] * 6 + [20] * 20
    selections = [2, 8, 14], [20, 24, 28, 32, 36]
    expected = [None] * 2 + [i for i in selections[0] for _ in range(6)]
    expected += [i for i in selections[1] for _ in range(4)]
    assert [row["selection"] for row in rows] == expected
    assert [row["layer"] for row in rows if row["has_memory"]] == [1, 14]
    assert [row["layer"] for row in rows if row["feeds_draft"]] == [37, 38, 39]
    assert sum(bool(row["is_encoder"]) for row in rows) == 20
