"""Reading a release: names, shapes and decoding against lists and arithmetic that do not share our code."""

import json
import math
import weakref

import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from tests.oracles.v4_release import CONFIG, ITEM_BYTES, random_release, release, shards_of
from workbench.model import Transformer, names
from workbench.model.checkpoint import files as checkpoint_files
from workbench.model.checkpoint import from_pretrained, read_config, read_state, tensors
from workbench.model.checkpoint.plan import plan


@pytest.fixture(scope="session")
def official(tmp_path_factory):
    """A folder in the release's layout, and the state dict that it stands for."""
    stored, state = random_release(CONFIG.to_dict())
    folder = tmp_path_factory.mktemp("checkpoints") / "official"
    shards_of(stored, folder)
    return folder, state


@pytest.mark.parametrize(
    ("preset", "n_tensors", "stored_bytes"),
    [("deepseek-v4-pro", 145_116, 864_704_792_696), ("deepseek-v4-flash", 69_187, 159_609_485_896)],
)
def test_a_full_release_has_the_published_names_and_shapes(preset, n_tensors, stored_bytes):
    config = wb.load_config(preset)
    ours = {}
    for stored in plan(config, "official"):
        fmt = stored.block_format
        ours[stored.name] = fmt.code_shape(stored.shape) if fmt else stored.shape
        if fmt:
            ours[names.scale_name(stored.name)] = fmt.scale_shape(stored.shape)
    listed = release(config.to_dict())
    assert len(ours) == n_tensors
    assert sum(math.prod(w.shape) * ITEM_BYTES[w.dtype] for w in listed.values()) == stored_bytes
    assert ours == {name: weight.shape for name, weight in listed.items()}


def test_names_of_the_pro_release_as_printed_in_its_list():
    listed = {stored.name: stored for stored in plan(wb.load_config("deepseek-v4-pro"), "official")}
    for name, shape in {
        "layers.60.ffn.experts.383.w1.weight": (3072, 2 * 3584),
        "layers.59.attn.compressor.ape": (128, 512),
        "layers.2.attn.indexer.compressor.wgate.weight": (256, 7168),
        "mtp.0.hc_head_fn": (4, 28672),
        "layers.3.ffn.gate.bias": (384,),
        "layers.2.ffn.gate.tid2eid": (129_280, 6),
    }.items():
        assert listed[name].shape == shape


def test_renaming_goes_both_ways_for_every_tensor():
    for stored in plan(CONFIG, "official"):
        ours = names.to_transformers(stored.name)
        assert names.to_official(ours) == stored.name
    renamed = names.to_transformers("layers.7.ffn.experts.12.w3.weight")
    assert renamed == "model.layers.7.mlp.experts.12.up_proj.weight"


@pytest.mark.parametrize(
    "name", ["layers.0.attn.wq_c.weight", "layers.x.attn_norm.weight", "mtp.0.embed", ""]
)
def test_a_name_that_v4_does_not_have_is_refused(name):
    for rename in (names.to_official, names.to_transformers, names.to_saved):
        with pytest.raises(ValueError, match="V4 has no tensor"):
            rename(name)


def test_a_release_is_decoded_exactly_and_stacked(official):
    folder, expected = official
    state = read_state(folder, read_config(folder), dtype=torch.float32)
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert tensor.dtype == (torch.int64 if name.endswith("tid2eid") else torch.float32)
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_loaded_model_has_the_types_of_a_model_cast_to_that_type(official, dtype):
    folder, expected = official
    model = from_pretrained(folder, dtype=dtype)
    cast = Transformer(CONFIG).to(dtype).state_dict()
    loaded = model.state_dict()
    assert {n: t.dtype for n, t in loaded.items()} == {n: t.dtype for n, t in cast.items()}
    for name, tensor in loaded.items():
        assert torch.equal(tensor, expected[name].to(tensor.dtype)), name
    assert model(torch.arange(40)[None] % 64).isfinite().all()


def test_a_model_loaded_on_meta_first_computes_what_a_model_built_in_place_computes(official):
    folder, expected = official
    built = Transformer(CONFIG).eval()
    built.load_state_dict(expected)
    ids = torch.arange(41)[None] * 7 % 64
    assert torch.equal(from_pretrained(folder, dtype=torch.float32)(ids), built(ids))


def test_loading_without_mtp_leaves_its_blocks_out(official):
    folder, expected = official
    model = from_pretrained(folder, dtype=torch.float32, mtp=False)
    assert model.config.num_nextn_predict_layers == 0
    assert model.state_dict().keys() == {name for name in expected if not name.startswith("mtp.")}


def test_single_tensors_come_decoded_under_their_names_in_the_files(official):
    folder, expected = official
    found = dict(tensors(folder, "layers.1.ffn.experts.4.*"))
    assert found.keys() == {f"layers.1.ffn.experts.4.{w}.weight" for w in ("w1", "w2", "w3")}
    stacked = expected["model.layers.1.mlp.experts.gate_up_proj"][4]
    assert torch.equal(found["layers.1.ffn.experts.4.w1.weight"], stacked[:96])
    assert torch.equal(found["layers.1.ffn.experts.4.w3.weight"], stacked[96:])
    [(name, tensor)] = tensors(folder, "mtp.0.e_proj.*")
    assert torch.equal(tensor, expected[name])
    every = {name: tensor.dtype for name, tensor in tensors(folder)}
    assert len(every) == len(plan(CONFIG, "official"))
    assert every["embed.weight"] == torch.bfloat16


def test_reading_opens_two_shards_at_most_and_keeps_no_tensor_of_the_files(official, monkeypatch):
    folder, _ = official
    alive, most = {"shard": 0, "tensor": 0}, {"shard": 0, "tensor": 0}

    def count(thing, kind):
        alive[kind] += 1
        most[kind] = max(most[kind], alive[kind])
        weakref.finalize(thing, lambda: alive.update({kind: alive[kind] - 1}))
        return thing

    class Shard:
        def __init__(self, *args, **options):
            self.inner = real(*args, **options)
            count(self, "shard")

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def get_tensor(self, name):
            return count(self.inner.get_tensor(name), "tensor")

    real = checkpoint_files.safe_open
    monkeypatch.setattr(checkpoint_files, "safe_open", Shard)
    read_state(folder, CONFIG, dtype=torch.float32)
    assert most == {"shard": 2, "tensor": 2}  # a weight and its scales
    assert alive["tensor"] == 0


def test_a_base_release_with_fp8_experts_loads(tmp_path):
    values = CONFIG.replace(expert_dtype=None)
    stored = {n: t for n, t in random_release(CONFIG.to_dict())[0].items() if ".ffn.experts." not in n}
    for name, weight in release(CONFIG.to_dict()).items():
        if ".ffn.experts." in name and name.endswith("weight"):
            rows, columns = weight.shape[0], weight.shape[1] * 2
            stored[name] = torch.full((rows, columns), 3.5).to(torch.float8_e4m3fn)
            scales = torch.full((-(-rows // 128), -(-columns // 128)), 0.25)
            stored[names.scale_name(name)] = scales.to(torch.float8_e8m0fnu)
    shards_of(stored, tmp_path, 2, values)
    state = read_state(tmp_path, values, dtype=torch.float32)
    assert (state["mtp.0.mlp.experts.down_proj"] == 3.5 / 4).all()


def test_an_unknown_dtype_or_another_model_is_refused(official, tmp_path):
    folder, _ = official
    with pytest.raises(ValueError, match="weights load as one of"):
        from_pretrained(folder, dtype=torch.int8)
    (tmp_path / "config.json").write_text(json.dumps(wb.load_config("deepseek-v3").to_dict()))
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="deepseek_v3"):
        from_pretrained(tmp_path)
