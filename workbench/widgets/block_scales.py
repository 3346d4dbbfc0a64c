"""Drag an outlier through a row of numbers; compare the rules, the errors and the widths of block formats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import ipywidgets
import plotly.graph_objects as go
import torch
from torch import Tensor

from workbench.plots.block_scales import Row, block_figure, league_figure
from workbench.quant.formats import FORMATS
from workbench.quant.quantized import Format, Quantized
from workbench.widgets.explorer import Explorer

POWER, HUAWEI, INTEGER, FLOAT = "shared power of two", "HiF4", "integer", "FP8, FP32 scale"
# By name in FORMATS: the text shown and the kind, which is a colour.
SHOWN: dict[str, tuple[str, str]] = {
    "mxfp4": ("MXFP4 FLOOR (OCP)", POWER),
    "mxfp4_ceil": ("MXFP4 CEIL", POWER),
    "mxfp4_v4": ("MXFP4 RCEIL (V4)", POWER),
    "mxfp4_even": ("MXFP4 EVEN", POWER),
    "nvfp4": ("NVFP4", "NVFP4"),
    "nvfp4_46": ("NVFP4, 4 over 6", "NVFP4"),
    "hif4": ("HiF4", HUAWEI),
    "int4_group32": ("INT4, groups of 32", INTEGER),
    "int4_group128": ("INT4, groups of 128", INTEGER),
    "mxfp6_e2m3": ("MXFP6 E2M3", POWER),
    "mxfp6_e3m2": ("MXFP6 E3M2", POWER),
    "hif8": ("HiF8", "cast alone"),
    "e4m3fn": ("E4M3", "cast alone"),
    "e5m2": ("E5M2", "cast alone"),
    "mxfp8_e4m3": ("MXFP8 E4M3", POWER),
    "mxfp8_e5m2": ("MXFP8 E5M2", POWER),
    "fp8_e4m3_1x128_ue8m0": ("FP8 1×128, V4", POWER),
    "fp8_e4m3_1x128": ("FP8 1×128, V3", FLOAT),
    "int8_group128": ("INT8, groups of 128", INTEGER),
    "int8_token": ("INT8 a token (Ascend)", INTEGER),
    "mlu_int8_pos": ("INT8 position (MLU)", INTEGER),
    "mlu_int8_pos_scale": ("INT8 position, scale (MLU)", INTEGER),
}
IN_A_ROW = (
    "mxfp4", "mxfp4_ceil", "mxfp4_v4", "mxfp4_even", "nvfp4", "nvfp4_46", "hif4", "int4_group32",
    "mxfp6_e2m3", "mxfp8_e4m3", "hif8", "int8_token", "mlu_int8_pos", "mlu_int8_pos_scale",
)  # fmt: skip
LEAGUE = tuple(name for name in SHOWN if name != "int8_token")  # on rows of 128 it equals int8_group128
# The formats of `frontier_figure`, and where each name stands beside its mark.
_SIDE = {
    "mxfp4_ceil": "middle right", "mxfp4_v4": "top center", "int4_group128": "bottom center",
    "nvfp4": "middle right", "nvfp4_46": "middle right", "hif4": "top center",
    "int4_group32": "middle right",
    "mxfp6_e2m3": "middle right", "mxfp6_e3m2": "middle right", "hif8": "bottom left", "e4m3fn": "top left",
    "e5m2": "middle left", "mxfp8_e4m3": "bottom center", "mxfp8_e5m2": "bottom center",
    "fp8_e4m3_1x128": "top center", "int8_group128": "middle left", "mlu_int8_pos": "middle left",
    "mlu_int8_pos_scale": "middle left",
}  # fmt: skip
# What each library means by MXFP4, by the name in FORMATS that does as it does.
MXFP4_LIBRARIES = {
    "OCP MX, torchao, gfloat": "mxfp4",
    "microxcaling": "mxfp4_microxcaling",
    "torchao, CEIL": "mxfp4_ceil",
    "V4, torchao RCEIL": "mxfp4_v4",
    "ModelOpt": "mxfp4_modelopt",
    "Quark, compressed-tensors": "mxfp4_even",
}
PLACE = 5  # where the outlier stands


def outlier_row(outlier: float, seed: int = 0, numbers: int = 64) -> Tensor:
    """Standard normal numbers, one of which is replaced. Shapes: -> (numbers,)."""
    x = torch.randn(numbers, generator=torch.Generator().manual_seed(seed))
    x[PLACE] = outlier
    return x


def scale_of_each(quantized: Quantized) -> Tensor:
    """The scale that each number of a tensor is multiplied with, in fp32; ones without scales.

    Shapes: -> as the numbers.
    """
    scales = quantized.block_scales()
    if scales is None or scales.ndim == 0:
        return (torch.ones(()) if scales is None else scales).expand(quantized.shape)
    for axis, (width, blocks) in enumerate(zip(quantized.shape, scales.shape, strict=True)):
        scales = scales.repeat_interleave(-(-width // blocks), dim=axis).narrow(axis, 0, width)
    return scales


def outlier_figure(outlier: float, shown: str = "mxfp4_v4", seed: int = 0) -> go.Figure:
    """A row of 64 numbers with an outlier, in the format `shown`, and what 14 formats do to the rest."""
    x = outlier_row(outlier, seed)
    others = torch.arange(len(x)) != PLACE
    outcomes, values = [], []
    for name in IN_A_ROW:
        quantized = FORMATS[name].quantize(x[None])
        stored = quantized.dequantize()[0]
        error = float((stored - x)[others].norm() / x[others].norm())
        zeros = int(((stored == 0) & (x != 0)).sum())
        text = f"{zeros} zeros, outlier {float(stored[PLACE]):.4g}"
        outcomes.append({"format": SHOWN[name][0], "kind": SHOWN[name][1], "error": error, "text": text})
        if name == shown:
            scales = scale_of_each(quantized)[0]
            for number, value, scale in zip(x.tolist(), stored.tolist(), scales.tolist(), strict=True):
                values.append({"number": number, "stored": value, "scale": scale})
    return block_figure(values, outcomes, SHOWN[shown][0], reach=4)


def outlier_explorer(picture: str | None = None) -> Explorer:
    """A slider for the outlier, the format that is drawn, and the seed. Opens at V4's format."""
    controls = {
        "outlier": ipywidgets.FloatLogSlider(24, base=2, min=0, max=10, step=0.05, readout_format=".3g"),
        "shown": ipywidgets.Dropdown(
            options=[(SHOWN[name][0], name) for name in IN_A_ROW], value="mxfp4_v4", description="format"
        ),
        "seed": ipywidgets.IntSlider(0, 0, 99, description="seed"),
    }
    return Explorer(outlier_figure, controls, picture=picture, title="One outlier in a row of 64")


def rule_rows(names: Mapping[str, str], low: float, high: float, seed: int = 0) -> list[Row]:
    """Rows of `scale_rules_figure`: 100 normal blocks of 32, scaled so that their largest is each amax."""
    blocks = torch.randn(100, 32, generator=torch.Generator().manual_seed(seed))
    blocks /= blocks.abs().amax(dim=1, keepdim=True)
    rows: list[Row] = []
    for amax in torch.logspace(math.log2(low), math.log2(high), 121, base=2).tolist():
        x = amax * blocks
        for name, shown in names.items():
            stored = FORMATS[name].quantize(x).dequantize()
            becomes = FORMATS[name].quantize(torch.full((1, 32), amax)).dequantize()
            error = float((stored - x).norm() / x.norm())
            rows.append({"rule": shown, "amax": amax, "becomes": float(becomes[0, 0]), "error": error})
    return rows


def sqnr_db(x: Tensor, fmt: Format) -> float:
    """Signal over quantisation noise of a tensor in a format, in decibels."""
    x = x.double()
    noise = (fmt.quantize(x.float()).dequantize().double() - x).square().sum()
    return float(10 * torch.log10(x.square().sum() / noise))


def league_rows(data: Mapping[str, Tensor], names: Sequence[str] = LEAGUE) -> list[Row]:
    """Rows of `league_figure`, the best on the first data on top."""
    rows: list[Row] = [
        {
            "format": SHOWN[name][0],
            "kind": SHOWN[name][1],
            "name": name,
            "bits": FORMATS[name].bits_per_value,
            "data": label,
            "sqnr": sqnr_db(x, FORMATS[name]),
        }
        for name in names
        for label, x in data.items()
    ]
    first = {row["format"]: row["sqnr"] for row in rows if row["data"] == next(iter(data))}
    return sorted(rows, key=lambda row: -first[row["format"]])


def frontier_rows(league: Sequence[Row]) -> list[Row]:
    """Rows of `frontier_figure` from a league on one kind of data: what can be told apart, narrow first."""
    return [
        {
            **row,
            "panel": "4-bit elements" if row["bits"] < 6 else "6- and 8-bit elements",
            "side": _SIDE[row["name"]],
        }
        for row in sorted(league, key=lambda row: row["bits"])
        if row["name"] in _SIDE
    ]


def tails(degrees: int, shape: tuple[int, int], seed: int = 0) -> Tensor:
    """Student's t with some degrees of freedom: the fewer, the heavier its tails. Shapes: -> shape.

    A normal number over the root of the mean of `degrees` squared ones.
    """
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(degrees, *shape, generator=generator).square().mean(dim=0).sqrt()
    return torch.randn(shape, generator=generator) / spread


def tails_figure(degrees: int, seed: int = 0) -> go.Figure:
    """The league on 64 rows of 128 numbers, normal ones and ones with heavier tails."""
    generator = torch.Generator().manual_seed(seed)
    data = {
        "normal": torch.randn(64, 128, generator=generator),
        f"Student's t, {degrees} degrees": tails(degrees, (64, 128), seed),
    }
    return league_figure(league_rows(data), "How much the tails of the data decide")


def tails_explorer(picture: str | None = None) -> Explorer:
    """Sliders for the weight of the tails and the seed. Opens at 3 degrees of freedom."""
    controls = {
        "degrees": ipywidgets.SelectionSlider(
            options=[2, 3, 4, 5, 7, 10, 20, 50], value=3, description="degrees of freedom"
        ),
        "seed": ipywidgets.IntSlider(0, 0, 99, description="seed"),
    }
    return Explorer(tails_figure, controls, picture=picture, title="Which format wins depends on the data")
