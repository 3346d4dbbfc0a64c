"""Type a number and see its bits in every format; draw the values of a format and its rounding error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import get_args

import ipywidgets
import plotly.graph_objects as go
import torch

from workbench.plots.number_formats import Row, bits_figure
from workbench.quant.element import Overflow, TableElement
from workbench.quant.elements import ELEMENTS
from workbench.quant.floats import FloatFormat
from workbench.quant.integers import IntegerFormat
from workbench.quant.rounding import Ties
from workbench.widgets.explorer import Explorer

SCALES = {"ue4m3": "UE4M3 (scale)", "e6m2": "E6M2 (scale)", "e8m0": "E8M0 (scale)"}
SMALL = {
    "int8": "INT8", "e5m2": "E5M2", "e5m2fnuz": "E5M2 FNUZ", "e4m3fn": "E4M3", "e4m3fnuz": "E4M3 FNUZ",
    "hif8": "HiF8", "e3m2": "E3M2", "e2m3": "E2M3", "int4": "INT4", "e2m1": "E2M1 (FP4)", "e1m2": "E1M2",
}  # fmt: skip
WIDE = {"tf32": "TF32", "bf16": "BF16", "fp16": "FP16"}
_FP32 = FloatFormat("fp32", 8, 23, 127, "ieee")


def parse_number(text: str) -> float:
    """A number as people write it: 0.1, -3e4, 1/3, 2^-9, 1.5*2^-9, inf, nan.

    Raises:
        ValueError: it is no such number.
    """
    plain = text.replace("−", "-").replace("**", "^").replace("·", "*").replace(" ", "")
    try:
        value = 1.0
        for factor in plain.split("*"):
            over, _, under = factor.partition("/")
            value *= _power(over) / _power(under or "1")
        return value
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise ValueError(
            f"parse_number: got {text!r}; it must be a number such as 0.1, -3e4, 1/3, 2^-9, 1.5*2^-9, inf or "
            f"nan; type one of these ({error})"
        ) from error


def _power(text: str) -> float:
    base, _, exponent = text.partition("^")
    size = math.pow(float(base.removeprefix("-")), float(exponent or "1"))
    return -size if base.startswith("-") else size  # -2^2 is -4


def number_rows(
    number: float, names: Mapping[str, str], ties: Ties = "even", overflow: Overflow = "saturate"
) -> list[Row]:
    """Rows of `bits_figure`: FP32 first, then each element format of `names` (its name, the text shown).

    A format without a sign gets the magnitude, one without NaN says so.
    """
    x = torch.tensor([number], dtype=torch.float32)
    whole = int(x.view(torch.int32)) & 0xFFFFFFFF
    nothing = {"code": "", "value": "", "error": ""}
    rows: list[Row] = [{"format": "FP32", "fields": _FP32.fields(whole), **nothing}]
    for name, shown in names.items():
        element = ELEMENTS[name]
        mine = x if _has_sign(name) else x.abs()
        if mine.isnan().any() and not _has_nan(name):
            rows.append({"format": shown, "fields": (), **nothing, "value": "no code for NaN"})
            continue
        code = element.encode(mine, ties, overflow)
        rows.append(
            {
                "format": shown,
                "fields": element.fields(int(code)),
                "code": f"0x{int(code):0{-(-element.bits // 4)}X}",
                **_outcome(float(mine), float(element.decode(code)), name),
            }
        )
    return rows


def number_figure(number: float | str, ties: Ties = "even", overflow: Overflow = "saturate") -> go.Figure:
    """A number in FP32 and in every element format; text is read by `parse_number`."""
    value = parse_number(number) if isinstance(number, str) else number
    return bits_figure(number_rows(value, WIDE | SMALL | SCALES, ties, overflow), f"{number} in every format")


def number_explorer(picture: str | None = None) -> Explorer:
    """A field for a number, the rule for ties, and what happens past the largest. Opens at 0.3."""
    ties = [(f"to {rule}", rule) for rule in get_args(Ties) if rule != "stochastic"]
    controls = {
        "number": ipywidgets.Text("0.3", continuous_update=False, description="number (Enter)"),
        "ties": ipywidgets.Dropdown(options=ties, value="even", description="ties"),
        "overflow": ipywidgets.Dropdown(
            options=[("saturate", "saturate"), ("as the format says", "spec")], description="past the largest"
        ),
    }
    return Explorer(number_figure, controls, picture=picture, title="One number, bit by bit")


def value_rows(names: Mapping[str, str]) -> list[Row]:
    """Rows of `number_lines_figure`: every finite value, with the bits of mantissa that its binade has."""
    rows: list[Row] = []
    for name, shown in names.items():
        values = finite_values(name)
        positive = values[values > 0]
        binade = torch.frexp(positive).exponent
        precision = {0: 0}
        for exponent in binade.unique().tolist():
            mine = positive[binade == exponent]
            step = float((mine[1:] - mine[:-1]).min()) if len(mine) > 1 else math.inf
            precision[exponent] = 0 if math.isinf(step) else round(exponent - 1 - math.log2(step))
        rows += [
            {"format": shown, "value": value, "precision": _bits(precision.get(math.frexp(value)[1], 0))}
            for value in values.tolist()
        ]
    return rows


def error_rows(names: Mapping[str, str], low: int, high: int) -> list[Row]:
    """Rows of `relative_error_figure`: the worst of 256 numbers in each binade from 2^low up to 2^high."""
    x = torch.exp2(torch.arange(low, high)).outer(1 + (torch.arange(256) + 0.5) / 256)
    rows: list[Row] = []
    for name, shown in names.items():
        worst = (ELEMENTS[name].round(x) / x - 1).abs().amax(dim=1).tolist()
        # The last one once more, where its binade ends.
        for exponent, error in zip(range(low, high + 1), [*worst, worst[-1]], strict=True):
            rows.append({"format": shown, "magnitude": 2.0**exponent, "error": error})
    return rows


def lossless_rows(shifts: Iterable[int], source: str = "e2m1", target: str = "e4m3fn") -> list[Row]:
    """Rows of `lossless_figure`: every magnitude of one format times 2^shift, stored in another."""
    wide = ELEMENTS[target]
    magnitudes = finite_values(source)
    rows: list[Row] = []
    for shift in shifts:
        for magnitude in magnitudes[magnitudes > 0].tolist():
            number = magnitude * 2.0**shift
            code = wide.encode(torch.tensor([number]))
            is_exact = float(wide.decode(code)) == number
            is_normal = "1" in dict(wide.fields(int(code)))["exponent"]
            outcome = (
                "too large" if number > wide.largest
                else "lost" if not is_exact
                else "exact, a normal number" if is_normal
                else "exact, subnormal"
            )  # fmt: skip
            rows.append(
                {"shift": shift, "magnitude": magnitude, "text": f"{int(code):02X}", "outcome": outcome}
            )
    return rows


def rounding_rows(
    element: str, number: float, step: float, draws: int, seed: int = 0
) -> dict[str, list[Row]]:
    """Rows of `rounding_figure`: numbers in two gaps from `number` up, and a step added again and again.

    Keys: "means", over `draws` roundings of each number; "sums", of `draws` steps.
    """
    fmt, generator = ELEMENTS[element], torch.Generator().manual_seed(seed)
    values = finite_values(element)
    gaps = values[values >= number][:3]
    x = torch.linspace(float(gaps[0]), float(gaps[2]), 61)
    by_chance = fmt.round(x.expand(draws, -1), "stochastic", generator=generator).mean(dim=0)
    lines = {"exact": x, "to nearest": fmt.round(x), "stochastic": by_chance}
    means: list[Row] = [
        {"rounding": name, "number": at, "mean": mean}
        for name, line in lines.items()
        for at, mean in zip(x.tolist(), line.tolist(), strict=True)
    ]
    totals = dict.fromkeys(lines, torch.tensor([number]))
    sums: list[Row] = []
    for count in range(draws + 1):
        sums += [{"rounding": name, "step": count, "sum": float(total)} for name, total in totals.items()]
        totals = {
            "exact": totals["exact"] + step,
            "to nearest": fmt.round(totals["to nearest"] + step),
            "stochastic": fmt.round(totals["stochastic"] + step, "stochastic", generator=generator),
        }
    return {"means": means, "sums": sums}


@cache
def finite_values(name: str) -> torch.Tensor:
    """The finite values of an element format, each once, from the lowest up. Shapes: -> (values,)."""
    values = _values(name)
    return values[values.isfinite()].unique()


def _has_sign(name: str) -> bool:
    return bool(finite_values(name)[0] < 0)


@cache
def _has_nan(name: str) -> bool:
    return bool(_values(name).isnan().any())


def _values(name: str) -> torch.Tensor:
    element = ELEMENTS[name]
    assert isinstance(element, TableElement | IntegerFormat)
    return element.values


def _bits(count: int) -> str:
    return f"{count} bit{'s' * (count != 1)}" if count < 4 else "4 and more"


def _outcome(number: float, stored: float, name: str) -> Row:
    """What `bits_figure` says of a number and of the two values next to it."""
    if math.isnan(number):
        return {"value": "NaN", "error": ""}
    values = finite_values(name)
    at = torch.tensor(number)
    below, above = values[values < at][-1:].tolist(), values[values > at][:1].tolist()
    # Past the ends the next value is one that the format has not: the last step once more.
    low = below[0] if below else 2 * float(values[0]) - float(values[1])
    high = above[0] if above else 2 * float(values[-1]) - float(values[-2])
    place = (number - low) / (high - low) if math.isfinite(number) else float(number > 0)
    goes_to = (stored - low) / (high - low) if math.isfinite(stored) else float(number > 0)
    past = _text(stored) if not math.isfinite(stored) else "no more"
    return {
        "value": _text(stored),
        "error": _error(number, stored),
        "below": _text(low) if below else past,
        "above": _text(high) if above else past,
        "position": min(max(place, 0.0), 1.0),
        "goes_to": goes_to,
    }


def _error(number: float, stored: float) -> str:
    if number == stored:
        return "exact"
    if not (math.isfinite(stored) and math.isfinite(number)):
        return ""
    if number == 0:
        return "no zero"
    return f"{100 * (stored / number - 1):+.3g} %".replace("-", "−")


def _text(value: float) -> str:
    """A value in at most ten characters."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if math.isnan(value):
        return "NaN"
    mantissa, exponent = math.frexp(abs(value))
    is_power = mantissa == 0.5
    if value and (abs(value) < 2**-6 or abs(value) >= 1e6) and is_power:
        text = f"2<sup>{exponent - 1}</sup>"
        return (("-" if value < 0 else "") + text).replace("-", "−")
    return f"{value:.6g}".replace("-", "−")
