"""One way of writing for what tables write in many: every cell in the words that the readers know.

"TP=8", "TP 8" and "tp-8" are one layout, "µs" and "microseconds" one unit, "serving" and "online" one phase.
Words that are none of these stay as they are: whoever reads them says why a row is left out.
"""

from __future__ import annotations

import re
from dataclasses import replace

from workbench.chips.validation.rows import Row

_Rules = tuple[tuple[str, str], ...]

# The whole cell becomes the word on the right, where the pattern is found; the first that fits.
_PHASES: _Rules = (
    (r"^(price|cost|rl)\b", ""),
    (r"\bmixed|in-?flight|continuous", "mixed"),
    (r"offline", "offline"),
    (r"serv|online|e2e|end.to.end", "service"),
    (r"train", "training"),
    (r"prefill|^context|^prompt", "prefill"),
    (r"decod|generation|^output", "decode"),
    (r"kernel|micro-?bench|^op(erator)?s?$", "kernel"),
    (r"^mem", "memory"),
)
# Parts of a cell.
_UNITS: _Rules = (
    (r"[µμ]s|\busecs?\b|microseconds?", "us"),
    (r"milliseconds?|\bmsecs?\b", "ms"),
    (r"\b(?:tokens?|toks?)\s*(?:/|per)\s*(?:seconds?|secs?|s)\b|\btps\b|\bt/s\b", "tok/s"),
    (r"\s*\bper\s+(gpu|chip|npu|device|node|die|user)\b", r"/\1"),
    (r"\bper ?cent\b|\bpct\b", "%"),
    (r"\bgbps\b|\bgb/sec\b", "GB/s"),
)
_PRECISIONS: _Rules = (
    (r"\b(fp|bf|int)-(\d)", r"\1\2"),
    (r"bfloat16|\b16[- ]?bit\b", "bf16"),
    (r"float16|\bhalf\b", "fp16"),
    (r"\bfloat8|\b8-?bit float\w*|\be4m3\b", "fp8"),
    (r"\b8-?bit int\w*", "int8"),
    (r"\b4-?bit float\w*", "fp4"),
)
_DEGREE = re.compile(r"(?<![A-Za-z])([TDECPV]P|[TD]EP)\s*[=:-]?\s*(?=\d)", re.I)
_POWER_OF_TEN = re.compile(r"(?<![\w.])\d+(?:\.\d+)?[eE][+-]?\d{1,2}(?!\w)")
_NUMBERS = ("count", "batch", "input_len", "output_len", "value", "tpot_ms", "ttft_ms")


def plain(row: Row) -> Row:
    """The same row in the readers' words."""
    cells = {name: _written_out(getattr(row, name)) for name in _NUMBERS}
    return replace(
        row,
        **cells,
        phase=_as_one(row.phase, _PHASES),
        unit=_part_by_part(row.unit, _UNITS),
        precision=_part_by_part(row.precision, _PRECISIONS),
        metric=_as_typed(row.metric.replace("_", " ")),
        model=re.sub(r"(?i)\bv(\d)_(\d)\b", r"V\1.\2", row.model),
        parallelism=_DEGREE.sub(lambda found: found[1].upper(), row.parallelism),
    )


_DTYPES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "fp4": "nvfp4",
    "fp8_blockwise": "fp8_block",
}


def plain_kernel(row: dict[str, str]) -> dict[str, str]:
    """A row of a kernel table in the words of the package's own."""
    low = {name: row[name].lower() for name in ("op", "dtype", "distribution")}
    # An organisation before a model's name: "deepseek-ai/DeepSeek-V3".
    low["model_or_shape"] = re.sub(r"^[\w-]+/(?=[A-Za-z])", "", row["model_or_shape"])
    low["dtype"] = _DTYPES.get(low["dtype"].replace("-", "_"), low["dtype"].replace("-", "_"))
    return row | low


def plain_point(row: dict[str, str]) -> dict[str, str]:
    """A row of a serving table in the words of the package's own."""
    mode, backend = row["mode"].lower(), re.sub(r"[^a-z]", "", row["backend"].lower())
    mode = "agg" if re.match("agg|mono|coloc", mode) else "disagg" if re.match("dis|split", mode) else mode
    backend = "trtllm" if re.match("trt|tensorrt", backend) else backend
    numbers = {
        name: _written_out(cell).replace(",", "")
        for name, cell in row.items()
        if re.search("size|workers|^[io]sl$|concurrency|_ms$", name)
    }
    return row | numbers | {"mode": mode, "backend": backend}


def _as_one(words: str, rules: _Rules) -> str:
    low = words.lower().strip()
    for pattern, word in rules:
        if re.search(pattern, low):
            return word or low
    return low


def _part_by_part(words: str, rules: _Rules) -> str:
    for pattern, word in rules:
        words = re.sub(pattern, word, words, flags=re.I)
    return words.strip()


def _as_typed(words: str) -> str:
    """A metric in capitals is written in small letters, unless it is one acronym."""
    return words.lower() if words.isupper() and " " in words else words


def _written_out(words: str) -> str:
    """ "4.096e+03" as 4096, and thousands without the narrow spaces between them."""
    words = re.sub(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))", "", words)
    return _POWER_OF_TEN.sub(lambda found: f"{float(found[0]):.15g}", words)
