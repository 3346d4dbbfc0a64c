"""Explorers of one chip's kernels: an operation's timeline and limits; a changed V4 on every chip."""

from __future__ import annotations

import ipywidgets
import plotly.graph_objects as go

from workbench.chips import Chip, Operation, Workload, chips, kernel_time, load_chip, operations
from workbench.chips.kernels.schedule import resources
from workbench.chips.workload import Shard
from workbench.config import load_config
from workbench.plots.chips import breakdown_figure, pipeline_figure, time_text
from workbench.widgets.chip_rows import (
    CHIPS,
    EXPERT_RANKS,
    TRACED,
    breakdown_rows,
    layer,
    pipeline_rows,
    shown,
    shown_model,
    tokens_workload,
)
from workbench.widgets.explorer import Explorer
from workbench.widgets.what_if import variant


def operation_of(name: str, tokens: int, phase: str, context_tokens: int = 8192) -> Operation:
    """One operation of V4-Pro's CSA layer, for so many tokens on a device.

    Raises:
        ValueError: no operation of that name.
    """
    work = layer(load_config("deepseek-v4-pro"), tokens_workload(tokens, phase, context_tokens))
    found = [op for op in work if op.name == name]
    if not found:
        raise ValueError(
            f"operation_of: got {name!r}; a CSA layer with experts has {sorted({op.name for op in work})}; "
            f"choose one of these"
        )
    return found[0]


def kernel_figure(operation: str, chip: str, beside: str, tokens: int, phase: str) -> go.Figure:
    """The pipeline of one operation on one chip and on another, and what limits each by how much."""
    op = operation_of(operation, tokens, phase)
    pair = list(dict.fromkeys((chip, beside)))
    spans, heads = pipeline_rows(op, pair, tiles=4)
    for key, head in zip(pair, heads, strict=True):
        one = load_chip(key)
        alone, time = resources(op, one), kernel_time(op, one)
        head["text"] += (
            f" · {alone.expected_s / alone.roof_s:.1f}× the roofline"
            f" · from {time_text(float(time.lower_s))} to {time_text(float(time.upper_s))}"
        )
    where = "decoding" if phase == "decode" else "prefill"
    return pipeline_figure(spans, heads, f"{TRACED.get(operation, operation)}, {tokens} tokens, {where}")


def kernel_explorer(picture: str | None = None) -> Explorer:
    """Operation × chip × tokens: the timeline and the limits follow."""
    names = [(shown(key), key) for key in _single_chips()]
    select = ipywidgets.Dropdown
    controls = {
        "operation": select(options=[(text, name) for name, text in TRACED.items()], value="q_b_proj"),
        "tokens": ipywidgets.SelectionSlider(options=[2**i for i in range(14)], value=64),
        "phase": select(options=["decode", "prefill"]),
        "chip": select(options=names, value="ascend-910c"),
        "beside": select(options=names, value="h800"),
    }
    return Explorer(kernel_figure, controls, picture=picture, title="One operation, two chips")


def react_figure(
    model: str, tokens: int, context_tokens: int, index_topk: int, csa_ratio: int, hc_mult: int,
    moe_intermediate_size: int, num_attention_heads: int, small_formats: str = "as built",
) -> go.Figure:  # fmt: skip
    """Kernels of one decoding step of a changed V4 beside the released one, on every chip.

    small_formats "none" takes every 8- and 4-bit format away from every chip, so that products widen to BF16.
    """
    base = load_config(model)
    mine = variant(
        base.replace(
            hc_mult=hc_mult, moe_intermediate_size=moe_intermediate_size,
            num_attention_heads=num_attention_heads,
        ),
        csa_ratio=csa_ratio, hca_ratio=128, index_topk=index_topk, num_hidden_layers=base.num_hidden_layers,
    )  # fmt: skip
    workload = Workload(phase="decode", batch=tokens, context_tokens=context_tokens)
    shard = Shard(ep=EXPERT_RANKS)
    devices = [load_chip(key) for key in CHIPS]
    changed = [_without_small_formats(chip) for chip in devices] if small_formats == "none" else devices
    rows = breakdown_rows(operations(base, workload, shard), devices, "released")
    rows += breakdown_rows(operations(mine, workload, shard), changed, "yours")
    for row in rows:
        row["chip"] = row["chip"].removesuffix(" (custom)")
    order = {shown(key): i for i, key in enumerate(CHIPS)}
    rows.sort(key=lambda row: order[row["chip"]])
    title = f"One decoding step, {tokens} sequences of {context_tokens:,} tokens on each device: kernels only"
    return breakdown_figure(rows, title, height=640)


def react_explorer(picture: str | None = None) -> Explorer:
    """Change one field of V4's configuration, see every chip react. Opens at V4-Pro with half the top-k."""
    base = load_config("deepseek-v4-pro")
    slider, select = ipywidgets.SelectionSlider, ipywidgets.Dropdown
    heads, width = base.num_attention_heads, base.moe_intermediate_size
    controls = {
        "model": select(
            options=[(shown_model(key), key) for key in ("deepseek-v4-pro", "deepseek-v4-flash")],
            description="start from",
        ),
        "tokens": slider(options=[1, 4, 16, 64, 128, 256], value=64, description="sequences"),
        "context_tokens": slider(options=[1024 * 4**i for i in range(6)], value=16384, description="context"),
        "index_topk": slider(options=[128, 256, 512, 1024, 2048, 4096], value=512),
        "csa_ratio": slider(options=[2, 4, 8, 16], value=4, description="CSA ratio"),
        "hc_mult": slider(options=[1, 2, 4, 8], value=base.hc_mult, description="hc_mult"),
        "moe_intermediate_size": slider(
            options=[512, 1024, 2048, 3072, 4096], value=width, description="expert width"
        ),
        "num_attention_heads": slider(options=[32, 64, 128, 256], value=heads, description="query heads"),
        "small_formats": select(options=["as built", "none"], description="8 and 4 bits"),
    }  # fmt: skip
    return Explorer(react_figure, controls, picture=picture, title="Change one field, see every chip react")


def _single_chips() -> list[str]:
    """Chips that have a simulator of their own family and all that it needs, those of the series first."""
    known = [
        chip.key
        for chip in map(load_chip, chips())
        if chip.family in ("davinci", "mlu", "sm", "cu")
        and chip.memory_byte_per_s
        and "bf16" in chip.peak_flop_per_s
    ]
    return [*CHIPS, *sorted(set(known) - set(CHIPS))]


def _without_small_formats(chip: Chip) -> Chip:
    small = ("fp8", "mxfp8", "hif8", "mxfp6", "int8", "fp4", "mxfp4", "nvfp4", "int4")
    gone = {name: None for name in small if name in chip.peak_flop_per_s}
    return chip.replace(**gone, key=chip.key) if gone else chip
