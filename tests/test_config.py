"""A configuration loads as published, and bad input is refused in one line that says what to do."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.config import CONFIG_FOLDER, ModelConfig

FLASH = json.loads((CONFIG_FOLDER / "deepseek-v4-flash.json").read_text())


@pytest.mark.parametrize("name", wb.presets())
def test_a_preset_survives_a_round_trip_through_its_file_format(name, tmp_path):
    config = wb.load_config(name)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    assert ModelConfig.from_json(path) == config


@pytest.mark.parametrize(("name", "window", "csa", "hca"), [("pro", 0, 30, 31), ("flash", 2, 21, 20)])
def test_the_layer_pattern_is_the_released_one(name, window, csa, hca):
    config = wb.load_config(f"deepseek-v4-{name}")
    counts = [config.attention_types.count(kind) for kind in (
        "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention")]  # fmt: skip
    assert counts == [window, csa, hca]
    assert config.mlp_types[:4] == ("hash_moe", "hash_moe", "hash_moe", "moe")


@pytest.mark.parametrize("name", ["deepseek-v4-pro", "deepseek-v4-flash", "tiny", "mini"])
def test_transformers_reads_the_same_layers_from_our_file(name):
    transformers = pytest.importorskip("transformers")
    config = wb.load_config(name)
    theirs = transformers.DeepseekV4Config(**{k: v for k, v in config.to_dict().items() if k != "model_type"})
    assert tuple(theirs.layer_types) == config.attention_types
    assert tuple(theirs.mlp_layer_types) == config.mlp_types
    assert {theirs.compress_rates[kind] for kind in set(config.attention_types) - {"sliding_attention"}} == (
        set(config.layer_ratios) - {0}
    )
    assert ModelConfig.from_dict(theirs.to_dict()).layer_ratios == config.layer_ratios


REFUSED = [
    (dict(hidden_size=None), r"hidden_size missing"),
    (dict(num_hash_layers=None), r"num_hash_layers missing"),
    (dict(hidden_size="4096"), r"hidden_size is '4096' \(str\); it must be of type int"),
    (dict(hidden_size=4096.5), r"hidden_size is 4096.5 \(float\)"),
    (dict(norm_topk_prob=1), r"norm_topk_prob is 1 \(int\); it must be of type bool"),
    (dict(hidden_size=-1), r"hidden_size is -1; it must be positive"),
    (dict(compress_ratios=[0, 4]), r"compress_ratios has 2 entries; .* need 43 or 44"),
    (
        dict(compress_ratios=[0] * 42 + [8]),
        r"compress_ratios\[42\] is 8, neither 0, 4 nor 128; .*layer_types",
    ),
    (dict(compress_ratios=[0] * 43 + [4]), r"belong to MTP"),
    (
        dict(layer_types=["sliding_attention"] * 43),
        r"entry 2 is sliding_attention but compress_ratios\[2\] is 4",
    ),
    (dict(layer_types=["sliding_attention"]), r"layer_types .* needs num_hidden_layers=43 entries"),
    (dict(o_groups=7), r"o_groups is 7; it must divide num_attention_heads=64: one of \[1, 2, 4, 8"),
    (dict(num_experts_per_tok=300), r"num_experts_per_tok is 300; it must not exceed n_routed_experts=256"),
    (dict(qk_rope_head_dim=63), r"qk_rope_head_dim is 63; rotary channels come in pairs"),
    (dict(qk_rope_head_dim=1024), r"qk_rope_head_dim is 1024"),
    (dict(num_key_value_heads=8), r"num_key_value_heads is 8; V4 shares one"),
    (dict(rope_scaling={"type": "yarn"}), r"rope_scaling lacks factor, original_max_position_embeddings"),
    (dict(rope_scaling=FLASH["rope_scaling"] | {"factor": "16"}), r"rope_scaling.factor is '16' \(str\)"),
    (dict(index_head_dim=32), r"index_head_dim is 32; it must hold the 64 rotary channels"),
    (dict(model_type="deepseek_v5"), r"model_type 'deepseek_v5' is unknown; did you mean deepseek_v"),
    (dict(model_type="gpt"), r"model_type 'gpt' is unknown; choose one of \['deepseek_v3'"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_a_bad_file_is_refused_in_one_line(change, message, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({k: v for k, v in (FLASH | change).items() if v is not None}))
    with pytest.raises(ValueError, match=message) as error:
        ModelConfig.from_json(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("[]", "holds a list"),
        ("{}", "model_type missing"),
        (None, "cannot read"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(text, message, tmp_path):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_json(path)


def test_names_nobody_knows_are_answered_with_the_closest():
    with pytest.raises(ValueError, match="deepseek-v4-flash"):
        wb.load_config("deepseek-v4-falsh")
    with pytest.raises(ValueError, match=r"is a V4.1, .*load_v41\('deepseek-v4.1-flash'\)"):
        wb.load_config("deepseek-v4.1-flash")
    with pytest.raises(ValueError, match="did you mean index_topk"):
        wb.load_config("tiny").replace(index_top_k=3)
    with pytest.warns(UserWarning, match=r"index_top_k \(did you mean index_topk\?\)"):
        ModelConfig.from_dict(FLASH | {"index_top_k": 3})


def test_a_changed_copy_is_checked_and_the_original_stays():
    config = wb.load_config("tiny")
    assert config.replace(index_topk=7).index_topk == 7
    assert config.index_topk == 3
    with pytest.raises(ValueError, match=re.escape("num_hidden_layers=6")):
        config.replace(num_hidden_layers=6)


VALUES = (
    st.none() | st.integers(-2, 99) | st.text("a4", max_size=3) | st.lists(st.integers(-1, 130), max_size=4)
)


@given(st.dictionaries(st.sampled_from(sorted(FLASH)), VALUES, max_size=3))
def test_whatever_a_file_holds_the_answer_is_a_configuration_or_a_one_line_error(changes):
    message = ""
    try:
        ModelConfig.from_dict(FLASH | changes)
    except ValueError as error:
        message = str(error)
    assert not message or (message.startswith("ModelConfig:") and "\n" not in message)
