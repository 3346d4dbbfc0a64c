"""The catalog: what it says, where it does not know, and what it answers to a wrong name."""

import json
import math
import subprocess
import sys

import pytest

import workbench as wb
from workbench.chips import chips, clusters, load_chip, load_cluster
from workbench.chips.catalog import FOLDER, slug

MAC = 16 * 16 * 16  # multiply-adds of an Ascend cube in a cycle, FP16


def test_there_are_59_chips_and_each_loads():
    assert len(chips()) == 59
    loaded = [load_chip(name) for name in chips()]
    assert [chip.key for chip in loaded] == chips()
    assert {chip.vendor for chip in loaded} >= {"Huawei", "Cambricon", "NVIDIA", "AMD"}


@pytest.mark.parametrize("name", chips())
def test_every_number_has_a_source_a_kind_and_a_confidence(name):
    chip = load_chip(name)
    assert chip.quantities
    for field, quantity in chip.quantities.items():
        assert quantity.source and quantity.kind in ("published", "derived", "measured", "assumed"), field
        assert quantity.confidence in ("A", "B", "C"), field
        value = chip.peak_flop_per_s[field] if field in chip.peak_flop_per_s else getattr(chip, field)
        assert value == quantity.value, field
        if quantity.is_banded and quantity.value is not None:
            assert quantity.lower <= quantity.value <= quantity.upper, field


@pytest.mark.parametrize(
    ("name", "cubes", "clock"),
    [("ascend-910b2", 24, 1.8e9), ("ascend-910b3", 20, 1.8e9), ("ascend-910b4", 20, 1.5e9),
     ("ascend-910c", 48, 1.8e9), ("ascend-950dt", 36, 1.65e9), ("ascend-950dt-32", 32, 1.65e9),
     ("ascend-950dt-28", 28, 1.65e9)],
)  # fmt: skip
def test_an_ascend_peak_is_its_cubes_alone(name, cubes, clock):
    chip = load_chip(name)
    assert chip.matrix_cores == cubes and chip.clock_hz == clock
    assert chip.peak_flop_per_s["bf16"] == pytest.approx(cubes * MAC * 2 * clock, rel=2e-3)


def test_units_are_si():
    chip = load_chip("h800")
    assert chip.peak_flop_per_s["fp8"] == 1979e12
    assert chip.memory_byte_per_s == 3350e9
    assert chip.memory_bytes == 80 * 2**30
    assert chip.shared_memory_bytes == 228 * 1024
    assert chip.scaleup_byte_per_s == 200e9
    assert chip.scaleout_byte_per_s == 50e9  # 400 Gb/s
    assert load_chip("ascend-950dt").scaleup_latency_s == 1.5e-6


@pytest.mark.parametrize(
    ("name", "flop_per_byte"),
    [("h800", 591), ("h20", 74), ("h200", 412), ("b200", 563), ("gb300", 625), ("mi355x", 629),
     ("ascend-950dt", 243), ("ascend-950pr", 541)],
)  # fmt: skip
def test_rooflines_turn_where_they_are_said_to(name, flop_per_byte):
    chip = load_chip(name)
    assert chip.peak_flop_per_s["fp8"] / chip.memory_byte_per_s == pytest.approx(flop_per_byte, abs=0.6)


def test_what_is_not_known_is_none_and_may_have_a_band():
    chip = load_chip("mlu590")
    assert chip.nram_bytes is None and chip.l2_bytes is None and chip.is_uncertain
    band = chip.quantity("nram_bytes")
    assert (band.lower, band.upper) == (512 * 1024, 768 * 1024)
    assert band.middle == pytest.approx(math.sqrt(band.lower * band.upper))
    with pytest.raises(ValueError, match=r"mlu590: nram_bytes is not known \(between 524288 and 786432\)"):
        chip.need("nram_bytes")
    with pytest.raises(ValueError, match=r"kunlun-p800: memory_byte_per_s is not known; this needs a number"):
        load_chip("kunlun-p800").need("memory_byte_per_s")


def test_community_values_carry_a_quarter_either_way():
    chip = load_chip("mlu590")
    slow, fast = chip.slowest(), chip.fastest()
    assert slow.memory_byte_per_s == pytest.approx(0.75 * 2760e9)
    assert fast.peak_flop_per_s["bf16"] == pytest.approx(1.25 * 314e12)
    assert (chip.quantity("memory_bytes").lower, chip.quantity("memory_bytes").upper) == (
        60 * 2**30,
        192 * 2**30,
    )
    assert slow.memory_bytes == chip.memory_bytes  # what fits is another question than what is fast
    sure = load_chip("h100")
    assert sure.slowest() == sure == sure.fastest()


def test_a_longer_latency_is_the_slow_end():
    chip = load_chip("ascend-950dt")
    assert chip.slowest().scaleup_latency_s == 2e-6
    assert chip.fastest().scaleup_latency_s == 1.5e-6


def test_software_sees_half_of_a_910c():
    package, die = load_chip("ascend-910c"), load_chip("ascend-910c").device()
    assert die.key == "ascend-910c-die" and die.device() is die
    assert 2 * die.peak_flop_per_s["bf16"] == package.peak_flop_per_s["bf16"]
    assert (2 * die.memory_bytes, 2 * die.memory_byte_per_s) == (128 * 2**30, 3.2e12)
    assert (die.matrix_cores, die.l0c_bytes) == (24, package.l0c_bytes)
    assert die.quantity("memory_bytes").value == die.memory_bytes
    assert load_chip("b200").device() is load_chip("b200")  # two dies that run as one


@pytest.mark.parametrize(
    ("written", "key"),
    [("Ascend 910C", "ascend-910c"), ("910C", "ascend-910c"), ("h100_sxm", "h100"), ("B200 HGX", "b200"),
     ("rtx_pro_6000_server", "rtx-pro-6000"), ("MLU590 (Siyuan 590)", "mlu590"), ("TPU7x", "tpu-v7")],
)  # fmt: skip
def test_names_are_read_as_people_and_tables_write_them(written, key):
    assert load_chip(written).key == key


def test_no_two_chips_share_a_name():
    entries = json.loads((FOLDER / "chips.json").read_text())["chips"]
    names = [slug(n) for key, entry in entries.items() for n in {key, *entry.get("aliases", [])}]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ascend-910d", r"load_chip: chip 'ascend-910d' is unknown; did you mean ascend-910c"),
        ("H1000", r"did you mean h100"),
        ("950", r"did you mean ascend-950pr or ascend-950pr-atlas350 or ascend-950dt"),
        ("abacus", r"choose one of \['a100', "),
    ],
)
def test_an_unknown_chip_is_answered_with_the_closest(name, message):
    with pytest.raises(ValueError, match=message):
        load_chip(name)


def test_a_custom_chip_is_its_model_with_changes_marked_as_assumed():
    chip = load_chip("h20").replace(fp8=500e12, memory_byte_per_s=5e12, int8=None)
    assert chip.key == "h20-custom" and chip.tpp is None
    assert chip.peak_flop_per_s["fp8"] == 500e12 and "int8" not in chip.peak_flop_per_s
    assert chip.quantity("memory_byte_per_s").kind == "assumed"
    assert chip.quantity("memory_byte_per_s").value == 5e12
    assert load_chip("h20").memory_byte_per_s == 4e12
    with pytest.raises(
        ValueError, match=r"Chip.replace: field 'memory_bandwidth' is unknown; did you mean memory"
    ):
        chip.replace(memory_bandwidth=1.0)


@pytest.mark.parametrize(
    ("chip", "weight", "activation", "compute", "stored", "native"),
    [
        ("h800", "fp8", "fp8", "fp8", "fp8", True),
        # FP4 weights with FP8 activations never get the FP4 peak.
        ("b200", "fp4", "fp8", "fp8", "fp4", True),
        ("ascend-950dt", "fp4", "fp8", "fp8", "fp4", True),
        ("b200", "fp4", "fp4", "fp4", "fp4", True),
        ("h800", "fp4", "fp4", "fp8", "fp4", False),
        # No FP8: quantised anew to INT8, experts to INT4.
        ("ascend-910c", "fp8", "fp8", "int8", "int8", False),
        ("ascend-910c", "fp4", "fp8", "int8", "int4", False),
        ("mlu370-x8", "fp4", "fp8", "int8", "int4", False),
        ("mi250x", "fp8", "fp8", "int8", "int8", False),
        ("t-head-ppu", "fp8", "fp8", "fp16", "fp8", False),
        # Residual mixing: TF32 where there is such a thing.
        ("h800", "fp32", "bf16", "tf32", "fp32", True),
        ("ascend-910c", "fp32", "bf16", "fp32", "fp32", False),
        ("mlu590", "fp32", "bf16", "bf16", "fp32", False),
        ("ascend-910a", "bf16", "bf16", "fp16", "bf16", False),
        ("ascend-950dt", "hif8", "hif8", "hif8", "hif8", True),
        ("b200", "nvfp4", "nvfp4", "nvfp4", "nvfp4", True),
        ("h800", "hif8", "hif8", "fp8", "hif8", True),
    ],
)  # fmt: skip
def test_a_product_runs_in_what_the_chip_has(chip, weight, activation, compute, stored, native):
    loaded = load_chip(chip)
    arithmetic = loaded.arithmetic(weight, activation)
    assert (arithmetic.compute, arithmetic.weight) == (compute, stored)
    assert arithmetic.flop_per_s == loaded.peak_flop_per_s[compute]
    assert arithmetic.is_native == native
    assert native or chip in arithmetic.note


def test_a_format_that_nothing_can_stand_in_for_is_an_error():
    with pytest.raises(ValueError, match=r"mlu290 has no known peak for bf16 .*known: int8, int4"):
        load_chip("mlu290").arithmetic("bf16")
    with pytest.raises(ValueError, match=r"enflame-l600 has no known peak for fp8 .*known: none"):
        load_chip("enflame-l600").arithmetic("fp8", "fp8")
    with pytest.raises(ValueError, match=r"format 'fp7' is unknown; choose one of"):
        load_chip("h100").arithmetic("fp7")


def test_cloudmatrix_is_one_supernode_of_two_levels():
    system = load_cluster("cloudmatrix384")
    assert (system.chip.key, system.chips, system.devices) == ("ascend-910c", 384, 768)
    assert [level.name for level in system.levels] == ["die", "node", "supernode", "scale-out"]
    assert [system.level(n).name for n in (1, 8, 9, 384, 385)] == [
        "node", "node", "supernode", "supernode", "scale-out",
    ]  # fmt: skip
    assert system.level(8).byte_per_s == system.level(384).byte_per_s == 2 * 196e9
    assert (system.level(8).latency_s, system.level(384).latency_s) == (0.5e-6, 5.5e-6)


@pytest.mark.parametrize("name", clusters())
def test_every_link_has_a_source(name):
    for level in load_cluster(name).levels:
        assert level.byte_per_s and level.bandwidth.source and level.shape
        assert level.latency_s is None or 0 < level.latency_s < 1e-4
    sizes = [level.chips or math.inf for level in load_cluster(name).levels]
    assert sizes == sorted(sizes)


def test_a_chip_makes_a_cluster_of_its_own_links():
    h800 = load_cluster("h800", chips=128)
    assert [(level.name, level.chips) for level in h800.levels] == [("node", 8), ("scale-out", None)]
    assert h800.level(8).byte_per_s == 200e9 and h800.level(16).byte_per_s == 50e9
    assert load_cluster("h800").chips == 8
    mesh = load_cluster("mi300x").level(8)
    assert mesh.shape == "mesh" and mesh.pair_bandwidth.value == 64e9 and mesh.byte_per_s == 7 * 64e9
    assert load_cluster("atlas-650e", chip=load_chip("ascend-950dt-32")).chip.matrix_cores == 32


def test_a_cluster_that_cannot_be_is_refused():
    with pytest.raises(
        ValueError, match=r"load_cluster: cluster 'cloudmatrix' is unknown; did you mean cloudm"
    ):
        load_cluster("cloudmatrix")
    with pytest.raises(ValueError, match=r"8 × mlu590; no link of it is known; give one with chip.replace"):
        load_cluster("mlu590", chips=8)
    with pytest.raises(ValueError, match=r"9 chips; mlu370-x8 connects 8 at most; use fewer"):
        load_cluster("mlu370-x8", chips=9)


def test_the_room_is_quick_to_enter():
    code = "import sys, workbench.chips; print([n for n in ('torch', 'scipy', 'pandas') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert wb.chips.load_chip is load_chip
