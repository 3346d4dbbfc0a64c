"""The central explorer: a model on chips, in formats, at a batch and a context; what it yields and costs."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np
import plotly.graph_objects as go

from workbench.chips import Mapping, Workload, power_kw, predict, rent
from workbench.chips.precision import precision, precisions
from workbench.chips.predict import Prediction
from workbench.chips.published import published
from workbench.chips.search import BATCHES
from workbench.chips.serving import owned
from workbench.chips.systems import System, load_system, systems
from workbench.config import CSA, HCA, ModelConfig, load_config
from workbench.plots.serving import serving_figure
from workbench.units import HOUR_S, MILLION, MILLISECOND_S, gib
from workbench.widgets.chip_rows import MODELS, shown_model
from workbench.widgets.explorer import Explorer

# Tokens a step by drafts: V4-Pro on code with thinking (InferenceX golden curves, 2026).
ACCEPTED = {0: None, 1: 1.79, 2: 2.27, 3: 2.49}
KINDS = {
    CSA: "CSA attention", HCA: "HCA attention", "sliding_attention": "window attention", "moe": "experts",
    "hash_moe": "hashed experts",
}  # fmt: skip
LAYOUTS = ("experts over all", "experts over all, two batches", "tensor parallel 8")


def dollars_per_hour(chip: str) -> tuple[float, str] | None:
    """USD of a chip's hour and where the number comes from, None where no price is known."""
    for find in (rent, owned):
        try:
            found = find(chip)
        except ValueError:
            continue
        if found.value:
            return found.value, found.source
    return None


def _layout(config: ModelConfig, devices: int, layout: str) -> Mapping:
    if layout == "tensor parallel 8":
        groups = max(devices // 8, 1)
        tp = devices // groups
        return Mapping(dp=groups, attention_tp=tp, ep=devices)
    return Mapping(dp=devices, ep=devices, overlap="two batches" if "two" in layout else "none")


def setting(
    model: str, system: str, chips: int, formats: str, layout: str, batch: int, context: int, drafts: int
) -> tuple[System, Prediction, Prediction]:
    """The prediction of one setting, and of all batches.

    Raises:
        ValueError: a layout that does not divide the model, or a model that does not fit.
    """
    one, config = load_system(system), load_config(model)
    cluster = one.cluster(chips)
    mapping = _layout(config, cluster.devices, layout)
    work = Workload(
        phase="decode",
        batch=batch,
        context_tokens=context,
        draft_tokens=drafts,
        accepted_length=ACCEPTED[drafts],
    )
    recipe = one.precision if formats == "as served" else precision(formats)
    made = predict(config, cluster, work, mapping, precision=recipe, with_engine=one.engine)
    many = predict(
        config, cluster, work.replace(batch=np.array(BATCHES, dtype=float)), mapping, precision=recipe,
        with_engine=one.engine, check_memory=False,
    )  # fmt: skip
    return one, made, many


def explorer_figure(
    model: str, system: str, chips: int, formats: str, layout: str, batch: int, context: int, drafts: int
) -> go.Figure:
    """Step, memory, speed and cost of one setting, beside all batches and the published points."""
    one, made, many = setting(model, system, chips, formats, layout, batch, context, drafts)
    chip = one.cluster(chips).chip
    parts: dict[str, float] = {}
    for row in made.rows:
        layer = KINDS.get(row.layer_type, row.layer_type)
        name = {"operation": layer, "message": f"link: {row.name}"}.get(row.kind, "engine")
        parts[name] = parts.get(name, 0.0) + float(row.time.expected) / MILLISECOND_S
    held: dict[str, float] = {}
    for item in made.memory:
        name = item.name if item.kind != "weights" or item.name == "experts" else "other weights"
        held[name.partition(" (")[0]] = held.get(name.partition(" (")[0], 0.0) + gib(float(item.size_bytes))
    per_step = float(made.workload.tokens_per_step)
    fits = np.asarray(many.fits)
    times = {
        end: np.asarray(getattr(many.step_s, end))[fits] / per_step for end in ("lower", "expected", "upper")
    }
    made_by = np.asarray(many.workload.batch)[fits] * many.mapping.dp / many.chips
    curve = {
        "ms": times["expected"] / MILLISECOND_S, "rate": made_by / times["expected"],
        "lower": times["lower"] / MILLISECOND_S, "upper": times["upper"] / MILLISECOND_S,
        "rate_upper": list(made_by / times["lower"]), "rate_lower": list(made_by / times["upper"]),
        "text": [f"batch {b:.0f}" for b in np.asarray(many.workload.batch)[fits]],
    }  # fmt: skip
    rate, tpot = float(made.tokens_per_s_per_chip), float(made.tpot_s)
    points = [
        {"ms": p.interval_s / MILLISECOND_S, "rate": p.rate, "text": p.text}
        | {"is_near": 0.5 < p.context_tokens / context < 2 and p.draft_tokens == drafts}
        for p in published() if p.model == model and p.chip == chip.key
    ]  # fmt: skip
    ends = made.step_s.lower / per_step / MILLISECOND_S, made.step_s.upper / per_step / MILLISECOND_S
    title = (
        f"{shown_model(model)} on {chips} × {one.name}: {tpot / MILLISECOND_S:.1f} ms a token "
        f"({ends[0]:.0f} to {ends[1]:.0f}), "
        f"{rate:,.0f} tok/s and chip<br><sup>{_cost_text(chip.key, rate)}; limit: {made.limiting}</sup>"
    )
    return serving_figure(
        _sorted(parts, "ms"), [m | {"room": gib(made.memory_bytes)} for m in _sorted(held, "gib")], curve,
        {"ms": tpot / MILLISECOND_S, "rate": rate, "text": f"batch {batch}"}, points, title,
    )  # fmt: skip


def _sorted(values: dict[str, float], unit: str) -> list[dict[str, Any]]:
    return [{"part": name, unit: v} for name, v in sorted(values.items(), key=lambda pair: -pair[1])]


def _cost_text(chip: str, rate: float) -> str:
    price = dollars_per_hour(chip)
    words = "no price of this chip is known"
    if price:
        words = (
            f"USD {price[0] / HOUR_S / rate * MILLION:.2f} per million output tokens at USD {price[0]:.2f}/h"
        )
    try:
        kwh = (power_kw(chip).value or 0.0) / HOUR_S / rate * MILLION
    except ValueError:
        return f"{words}; its power is not known"
    return f"{words}, {kwh:.2f} kWh"


def serving_explorer(picture: str | None = None) -> Explorer:
    """Model × chip × chips × formats × layout × batch × context × drafts. Opens at V4-Pro on 64 950DT."""
    slider, select = ipywidgets.SelectionSlider, ipywidgets.Dropdown
    names = [(load_system(key).name, key) for key in systems()]
    controls = {
        "model": select(options=[(name, key) for key, name in MODELS.items()]),
        "system": select(options=names, value="atlas-950-superpod"),
        "chips": slider(options=[4, 8, 16, 32, 64, 128], value=64),
        "formats": select(options=["as served", *precisions()]),
        "layout": select(options=LAYOUTS),
        "batch": slider(options=[1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 256, 512], value=48),
        "context": slider(options=[1024 * 2**i for i in range(11)], value=8192),
        "drafts": slider(options=list(ACCEPTED), value=1),
    }
    return Explorer(explorer_figure, controls, picture=picture, title="A model, a cluster, a setting")
