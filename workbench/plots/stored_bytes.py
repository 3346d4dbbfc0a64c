"""What lies in memory: two codes in a byte, records to scale, and FP4 values that become FP8.

Rows come from `workbench.widgets.number_formats`, which asks `workbench.quant` for every byte.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from workbench.plots.number_formats import add_bits, in_order
from workbench.plots.template import BLUE, GRAY, INK, ORANGE, PALE, PURPLE, SKY, VERMILLION, Palette

Row = Mapping[str, Any]

PART = Palette(
    "PART",
    {"FP8": BLUE, "FP4": SKY, "BF16": ORANGE, "scales": VERMILLION, "padding": PALE},
)
CONVERSION = Palette(
    "CONVERSION",
    {"exact, a normal number": BLUE, "exact, subnormal": SKY, "lost": VERMILLION, "too large": PURPLE},
)


def byte_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Codes at their places inside one byte, bit 7 on the left.

    rows: {"lane", "fields", "lowest_bit", "text"}; fields: (name, bits) from the top bit down.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    widths = [sum(len(bits) for _, bits in row["fields"]) for row in rows]
    places = [8 - row["lowest_bit"] - width for row, width in zip(rows, widths, strict=True)]
    add_bits(figure, [(r["lane"], r["fields"], at) for r, at in zip(rows, places, strict=True)])
    figure.add_scatter(
        mode="text", x=[7.8] * len(rows), y=[row["lane"] for row in rows], text=[row["text"] for row in rows],
        textposition="middle right", textfont_color=GRAY, hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    lanes = [row["lane"] for row in rows]
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=lanes, autorange="reversed")
    figure.update_yaxes(showgrid=False, showline=False, ticks="")
    figure.update_xaxes(
        title="bit of the byte", tickvals=list(range(8)), ticktext=[f"{7 - bit}" for bit in range(8)],
        range=[-0.7, 13], showgrid=False, showline=False, ticks="",
    )  # fmt: skip
    figure.add_vline(x=3.5, line={"color": INK, "width": 1.5, "dash": "dot"})
    return figure.update_layout(barmode="overlay", bargap=0.2, height=170 + 40 * len(rows))


def records_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """Records of memory, byte by byte to scale: one lane a record, one bar a part.

    rows: {"record", "part", "first_byte", "bytes", "text"}, records in order.

    Raises:
        ValueError: a part without a colour.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    for part in in_order(PART, (row["part"] for row in rows)):
        mine = [row for row in rows if row["part"] == part]
        figure.add_bar(
            name=part, orientation="h", y=[row["record"] for row in mine],
            base=[row["first_byte"] for row in mine], x=[row["bytes"] for row in mine],
            text=[row["text"] for row in mine], textposition="inside",
            insidetextanchor="middle", textangle=0, textfont_size=12,
            marker={"color": PART[part], "line": {"color": "white", "width": 1}},
            hovertext=[f"{r['bytes']:g} bytes from {r['first_byte']:g}" for r in mine],
            hovertemplate="%{y}: %{hovertext}<extra>" + part + "</extra>",
        )  # fmt: skip
    records = list(dict.fromkeys(row["record"] for row in rows))
    for record in records:
        end = max(row["first_byte"] + row["bytes"] for row in rows if row["record"] == record)
        figure.add_annotation(
            x=end, y=record, text=f"{end:g}", showarrow=False, xanchor="left", xshift=6, font_color=INK
        )
    figure.update_yaxes(categoryorder="array", categoryarray=records, autorange="reversed", showgrid=False)
    figure.update_xaxes(title="bytes", dtick=128)
    return figure.update_layout(barmode="overlay", bargap=0.35, height=170 + 54 * len(records))


def byte_map_figure(content: bytes, parts: Sequence[Row], title: str, columns: int = 64) -> go.Figure:
    """Every byte of a record as a cell, a row for each `columns` bytes; the darker, the larger the byte.

    parts: {"part", "first_byte", "bytes"}, which cover the record.

    Raises:
        ValueError: the parts do not cover the record, or one has no colour.
    """
    if sum(row["bytes"] for row in parts) != len(content):
        raise ValueError(
            f"byte_map_figure: parts of {sum(row['bytes'] for row in parts)} bytes for a record of "
            f"{len(content)}; they must cover it: pass every part, padding too"
        )
    figure = go.Figure(layout={"template": "workbench", "title": title})
    for row in parts:
        places = range(row["first_byte"], row["first_byte"] + row["bytes"])
        figure.add_scatter(
            name=row["part"], mode="markers", x=[p % columns for p in places],
            y=[p // columns for p in places],
            marker={
                "symbol": "square", "size": 12, "color": PART[row["part"]],
                "opacity": [0.2 + 0.8 * content[p] / 255 for p in places],
            },
            hovertext=[f"byte {p}: 0x{content[p]:02X}" for p in places],
            hovertemplate="%{hovertext}<extra>" + row["part"] + "</extra>",
        )  # fmt: skip
    lines = -(-len(content) // columns)
    figure.update_xaxes(
        title=f"byte within a line of {columns}", range=[-0.9, columns - 0.1], showgrid=False, dtick=8
    )
    figure.update_yaxes(
        title="first byte of the line", range=[lines - 0.3, -0.7], showgrid=False,
        tickvals=list(range(lines)), ticktext=[f"{columns * line}" for line in range(lines)],
    )  # fmt: skip
    return figure.update_layout(height=160 + 18 * lines, legend={"itemsizing": "constant"})


def lossless_figure(rows: Sequence[Row], title: str) -> go.Figure:
    """What becomes of every FP4 value times a power of two when it is stored in FP8.

    rows: {"shift", "magnitude", "text", "outcome"}; text: what a cell says.

    Raises:
        ValueError: an outcome without a colour.
    """
    figure = go.Figure(layout={"template": "workbench", "title": title})
    for outcome in in_order(CONVERSION, (row["outcome"] for row in rows)):
        mine = [row for row in rows if row["outcome"] == outcome]
        figure.add_bar(
            name=outcome, orientation="h", y=[f"{row['magnitude']:g}" for row in mine],
            base=[row["shift"] - 0.5 for row in mine], x=[1] * len(mine), text=[row["text"] for row in mine],
            textposition="inside", insidetextanchor="middle", textangle=0, textfont_size=11,
            constraintext="none", customdata=[row["shift"] for row in mine],
            marker={"color": CONVERSION[outcome], "line": {"color": "white", "width": 1.5}},
            hovertemplate="%{y} · 2^%{customdata}: code %{text}<extra>" + outcome + "</extra>",
        )  # fmt: skip
    lanes = [f"{magnitude:g}" for magnitude in sorted({row["magnitude"] for row in rows})]
    for lane, outcomes in (("exact", ("exact, a normal number", "exact, subnormal")),
                           ("exact and normal", ("exact, a normal number",))):  # fmt: skip
        lanes.append(lane)
        _add_window(figure, lane, [r["shift"] for r in rows if r["outcome"] not in outcomes], rows)
    shifts = sorted({row["shift"] for row in rows})
    figure.update_xaxes(
        title="shift k: scale of the block of 32 over scale of the 128×128 block, as a power of two",
        tickvals=shifts, ticktext=[f"{shift}".replace("-", "−") for shift in shifts], showgrid=False,
        range=[shifts[0] - 0.6, shifts[-1] + 0.6],
    )  # fmt: skip
    figure.update_yaxes(
        title="FP4 magnitude", type="category", categoryorder="array", categoryarray=lanes, showgrid=False
    )
    return figure.update_layout(barmode="overlay", bargap=0, height=170 + 34 * len(lanes))


def _add_window(figure: go.Figure, lane: str, missed: Sequence[int], rows: Sequence[Row]) -> None:
    """A bar over the shifts that no magnitude misses."""
    kept = sorted({row["shift"] for row in rows} - set(missed))
    if kept:
        figure.add_bar(
            orientation="h", y=[lane], base=[kept[0] - 0.5], x=[len(kept)], showlegend=False, width=0.62,
            text=f"{len(kept)} shifts: largest over smallest scale up to 2<sup>{len(kept) - 1}</sup>",
            textposition="inside", insidetextanchor="middle", textfont_size=12, hoverinfo="skip",
            marker={"color": "white", "line": {"color": INK, "width": 1.5}},
        )  # fmt: skip
