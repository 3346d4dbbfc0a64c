"""Reading the words of a measurement: models, chips, precisions, layouts, drafts, lengths.

The tables of published measurements are written for people: "DP8 attention, experts TP8, draft 1 step". What
is read here is general; nothing knows a row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from workbench.chips.catalog import chips, load_chip
from workbench.chips.precision import Precision, precision

# First match wins: the longer name stands first. Values are presets.
_MODELS = (
    (r"v4\.1", None),
    (r"v4[-_ ]?pro", "deepseek-v4-pro"),
    (r"v4[-_ ]?flash", "deepseek-v4-flash"),
    (r"v3\.2", "deepseek-v3.2"),
    (r"(deepseek|nv|ds)[-_/ ]*(v3|r1)|^(v3|r1)\b", "deepseek-v3"),
    (r"kimi[- ]?k2", "kimi-k2"),
    (r"qwen3[- ]?235b", "qwen3-235b-a22b"),
    (r"qwen[- ]?2\.5[- ]?72b", "qwen2.5-72b"),
    (r"llama[- ]?3\.1[- ]?405b", "llama-3.1-405b"),
    (r"pangu ultra moe", "pangu-ultra-moe"),
    (r"pangu ultra.*135b|135b.*pangu ultra", "pangu-ultra"),
)
# What a table calls a chip, where the catalog's own names and aliases do not hold.
_CHIPS = (
    (r"910c( die| dies)", "ascend-910c"),
    (r"ascend 910c|910c", "ascend-910c"),
    (r"ascend 910b|910b", "ascend-910b2"),
    (r"950dt", "ascend-950dt"),
    (r"950pr", "ascend-950pr"),
)
_DIE_WORDS = re.compile(r"910c dies?|\bdie\b", re.I)


def model_of(words: str) -> str | None:
    """The preset that a model's name means, or None."""
    low = words.lower()
    for pattern, preset in _MODELS:
        if re.search(pattern, low):
            return preset
    return None


def chip_of(words: str) -> str | None:
    """The catalog's key of a chip, or None: "B200-class SM100", "GB300 (SGLang)", "Ascend 910C die"."""
    low = words.lower()
    for pattern, key in _CHIPS:
        if re.search(pattern, low):
            return key
    candidates = [
        words,
        re.split(r"[(+,]| class|-class", words)[0].strip(),
        words.split()[0] if words else "",
    ]
    for name in candidates:
        try:
            return load_chip(name).key if name else None
        except ValueError:
            continue
    squeezed = re.sub(r"[^a-z0-9]", "", low)
    found = [key for key in chips() if re.sub(r"[^a-z0-9]", "", key) in squeezed]
    return max(found, key=len) if found else None


def counts_dies(words: str) -> bool:
    """Whether "Ascend 910C die" and the like count devices rather than packages."""
    return bool(_DIE_WORDS.search(words))


def number(words: str) -> float | None:
    """The first number: "8192 max", "16K tok/GPU", "1M", "<2000"; None where there is none."""
    match = re.search(r"(\d[\d,]*\.?\d*)\s*([kKmM])?(?![a-zA-Z0-9])", words or "")
    if not match:
        match = re.search(r"(\d[\d,]*\.?\d*)", words or "")
        if not match:
            return None
        return float(match[1].replace(",", ""))
    factor = {"k": 1024, "m": 1024**2}.get((match[2] or "").lower(), 1)
    return float(match[1].replace(",", "")) * factor


def numbers(words: str) -> list[float]:
    """All of "123 / 250" or "64/96/128"."""
    return [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\.?\d*", words or "")]


def precision_of(words: str, model: str) -> Precision | str:
    """The recipe of a precision's words for a model, or why there is none."""
    low = words.lower()
    cache = "bf16" if "c16" in low else "fp8_v3.2" if "c8" in low and "v3" in model else None
    if "gguf" in low or "2-bit" in low or "cpu experts" in low:
        return f"precision {words!r}: no kernel of that kind is simulated"
    is_v4 = "v4" in model
    if "hif8" in low:
        name = "hif8-mxfp8-mxfp4"
    elif "mxfp8-mxfp4" in low:
        name = "mxfp8-mxfp4"
    elif re.search(r"(^|[^x])fp8-mxfp4", low):
        name = "fp8-mxfp4"
    elif "w4a8" in low:
        name = "int8, int4 experts"
    elif re.search(r"w4a16|int4|awq|gptq", low):
        name = "int4 experts"
    elif ("w8a8" in low and "fp8" not in low) or "int8" in low:
        name = "int8"
    elif "nvfp4" in low:
        name = "nvfp4 experts, fp8 activations" if is_v4 else "nvfp4 experts"
    elif "fp4" in low or "fp8 x fp4" in low:
        name = "mxfp4 experts" if is_v4 else "nvfp4 experts"
    elif "fp8" in low:
        name = "fp8"
    elif "bf16" in low:
        name = "bf16"
    elif not low.strip():
        name = "as released"
    else:
        return f"precision {words!r} is not understood"
    return precision(name, cache)


@dataclass(frozen=True)
class Drafts:
    """Speculative decoding as a table tells it: drafts a step, tokens a step if stated."""

    count: int = 0
    accepted_length: float | None = None
    kind: str = ""


def drafts_of(words: str, note: str = "") -> Drafts:
    """Drafts of "MTP3 (1.44 accepted)", "draft 3 steps", "DSpark accept 4.0", "PD + MTP 3", "no MTP".

    A note such as "MTP3 accepts 1.44" gives accepted drafts, to which the step's own token adds one.
    """
    low = words.lower()
    if re.search(r"no mtp|no draft|target only|without mtp", low):
        return Drafts()
    if "dspark" in low:
        accepted = re.search(r"accept\w*\s*([\d.]+)", low)
        stated_drafts = re.search(r"dspark\s*(\d+)", low)
        return Drafts(
            int(stated_drafts[1]) if stated_drafts else 5, float(accepted[1]) if accepted else None, "dspark"
        )
    match = re.search(r"mtp\s*(\d)|draft\s*(\d)\s*step|(?<!\w)(\d)\s*draft", low)
    if match:
        count = int(next(g for g in match.groups() if g))
        stated = re.search(r"\(?([\d.]+)\s*accepted", low) or re.search(
            rf"mtp\s*{count}\s*accepts\s*([\d.]+)", note.lower()
        )
        return Drafts(count, 1 + float(stated[1]) if stated else None, "mtp")
    if re.search(r"\bmtp\b", low):
        return Drafts(1, None, "mtp")
    return Drafts()


@dataclass(frozen=True)
class Layout:
    """Degrees of parallelism as a text states them; None where it says nothing."""

    tp: int | None = None
    dp: int | None = None
    ep: int | None = None
    pp: int | None = None
    cp: int | None = None
    vp: int | None = None
    expert_tp: int | None = None
    waves: bool = False
    two_batches: bool = False
    balanced: bool = False


def layout_of(words: str) -> Layout:
    """The degrees in "EP32 DP attention", "DP4 attention + EP4 (MegaMoE)", "TP1 PP2 VP4 EP32"."""
    low = re.sub(r"(?<![a-z])([dt])ep\s*-?(\d+)", r"\1p\2 ep\2", words.lower())  # DEP8 is DP8 and EP8

    def degree(*patterns: str) -> int | None:
        for pattern in patterns:
            match = re.search(pattern, low)
            if match:
                return int(match[1])
        return None

    expert_tp = degree(r"experts tp\s*(\d+)")
    rest = re.sub(r"experts tp\s*\d+", "", low)
    tp = (lambda m: int(m[1]) if m else None)(re.search(r"(?<![a-z])tp\s*(\d+)", rest))
    ep = degree(r"(?<![a-z])ep\s*(\d+)")
    dp = degree(r"(?<![a-z])dp\s*(\d+)")
    if dp is None and re.search(r"dp attention|dp\s+attn", low):
        dp = ep
    return Layout(
        tp=tp, dp=dp, ep=ep, pp=degree(r"(?<![a-z])pp\s*(\d+)"), cp=degree(r"(?<![a-z])cp\s*(\d+)"),
        vp=degree(r"(?<![a-z])vp\s*(\d+)"), expert_tp=expert_tp,
        waves="megamoe" in low.replace(" ", "") or "fused dispatch" in low,
        two_batches=bool(re.search(r"micro-?batch|\bdbo\b|two-batch|\btbo\b", low)),
        balanced=bool(re.search(r"perfect eplb|balanced expert|forced", low)),
    )  # fmt: skip


@dataclass(frozen=True)
class Pools:
    """Prefill and decode pools in devices; the layout of one decode instance where stated."""

    prefill: int
    decode: int
    prefill_tp: int | None = None
    decode_ep: int | None = None
    decode_tp: int | None = None


def pools_of(words: str) -> Pools | None:
    """The pools of "P8(TP8)+D32(EP1)", "P4+D24", or None."""
    match = re.search(
        r"\bP(\d+)(?:\((TP|EP|DP)(\d+)\))?\s*\+\s*D(\d+)(?:\((TP|EP|DP)(\d+)\))?", words.upper()
    )
    if not match:
        return None
    return Pools(
        int(match[1]), int(match[4]),
        prefill_tp=int(match[3]) if match[2] == "TP" else None,
        decode_ep=int(match[6]) if match[5] == "EP" else None,
        decode_tp=int(match[6]) if match[5] == "TP" else None,
    )  # fmt: skip
