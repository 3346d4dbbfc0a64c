"""A measured row as a set-up of ours: model, chips, precision, layout, engine, drafts."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache

from workbench.chips.catalog import Chip, load_chip
from workbench.chips.clusters import Cluster, load_cluster
from workbench.chips.mapping import Mapping
from workbench.chips.precision import Precision
from workbench.chips.validation.rows import Row, Unpredictable
from workbench.chips.validation.text import (
    Drafts,
    Layout,
    chip_of,
    counts_dies,
    drafts_of,
    layout_of,
    model_of,
    number,
    precision_of,
)  # fmt: skip
from workbench.chips.workload import Workload
from workbench.config import ModelConfig, load_config

# Tokens a step by number of drafts, where a table does not say. Load generators send prompts without a chat
# template, so the curve without thinking holds (SemiAnalysisAI/InferenceX, dsv4_mtp, 2026-06). A DSpark head
# drafts all its tokens in one pass; SGLang's recipe earns 4.678 with it (measurements.csv, rows 185 to 190).
MTP_TOKENS = {1: 1.92, 2: 2.61, 3: 2.97}
DSPARK_TOKENS = {1: 1.84, 3: 3.01, 5: 4.678, 6: 4.678}
# Papers whose decoding drafts throughout, said once and not with every row: CloudMatrix384, section 5.
_DRAFTS_OF_SOURCE = {"2506.12708": Drafts(1, 1.7, "mtp")}
# Load of the busiest rank over the mean, where balance is not forced. Assumed, 1.2 to 2 (chips.md, a7:
# CloudMatrix prefill 5,655 against 6,688 tok/s with ideal balance; DeepSeek's profile 4,026 against 7,839).
UNEVEN = 1.35
# Spread of the logarithm of experts' popularity where balance is not forced. Assumed, 0.5 to 1.3.
SKEW = 1.0
# Systems whose chips sit in something wider than a node.
_SUPERNODES = {
    "ascend-910c": "cloudmatrix384", "ascend-950dt": "atlas-950-superpod", "gb200": "gb200-nvl72",
    "gb300": "gb300-nvl72",
}  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """What a row says of its run. `devices` counts what software sees; None where the row does not say."""

    config: ModelConfig
    config_name: str
    chip: Chip
    devices: int | None
    by_device: bool
    precision: Precision
    layout: Layout
    drafts: Drafts
    engine: str
    forced_balance: bool

    @property
    def per_chip(self) -> int:
        return int(self.chip.logical_devices)

    @property
    def accepted(self) -> float:
        """Tokens a decoding step yields."""
        if not self.drafts.count:
            return 1.0
        if self.drafts.accepted_length:
            return self.drafts.accepted_length
        table = DSPARK_TOKENS if self.drafts.kind == "dspark" else MTP_TOKENS
        near = min(table, key=lambda n: abs(n - self.drafts.count))
        return table[near]

    @property
    def draft_tokens(self) -> int:
        """Drafts that the model's own block makes; none where it has no such block."""
        return self.drafts.count if self.config.num_nextn_predict_layers else 0

    def cluster(self, devices: int) -> Cluster:
        """At least so many devices of the chip, in the widest system it is sold in."""
        chips = max(-(-devices // self.per_chip), 1)
        return cluster_of(self.chip.key, chips)


@lru_cache(maxsize=256)
def cluster_of(chip: str, chips: int) -> Cluster:
    """`chips` of a chip in the widest system it is sold in."""
    return load_cluster(_SUPERNODES.get(chip, chip), chips=chips)


@lru_cache(maxsize=32)
def config_of(name: str) -> ModelConfig:
    """A preset, or the configuration that a report states in words."""
    if name == "pangu-ultra-moe":
        # arXiv 2505.04519, table 1: V3's layers with hidden size 7680; recalled.
        return load_config("deepseek-v3").replace(hidden_size=7680)
    if name == "pangu-ultra":
        # arXiv 2504.07866, table 1: 94 dense layers, grouped-query attention; recalled.
        return load_config("llama-3.1-405b").replace(
            num_hidden_layers=94, hidden_size=12288, intermediate_size=28672, num_attention_heads=96,
            vocab_size=153376,
        )  # fmt: skip
    return load_config(name)


def setup_of(row: Row) -> Setup:
    """Everything the row says about its run.

    Raises:
        Unpredictable: a model, chip or precision that the package does not have.
    """
    name = model_of(row.model)
    if name is None:
        raise Unpredictable(f"model {row.model!r}: no published configuration in this package")
    key = chip_of(row.chip)
    if key is None:
        raise Unpredictable(f"chip {row.chip!r} is not in the catalog")
    chip = load_chip(key)
    recipe = precision_of(row.precision, name)
    if isinstance(recipe, str):
        raise Unpredictable(recipe)
    by_device = counts_dies(row.chip)
    count = number(row.count)
    devices = None if count is None else int(count) * (1 if by_device else int(chip.logical_devices))
    text = f"{row.parallelism} {row.note if 'EPLB' in row.note or 'balance' in row.note else ''}"
    layout = layout_of(row.parallelism)
    config = config_of(name)
    return Setup(
        config=config, config_name=name, chip=chip, devices=devices, by_device=by_device,
        precision=_on_chip(recipe, chip), layout=layout, drafts=_drafts(row),
        engine=engine_of(row), forced_balance=layout.balanced or _is_balanced(text),
    )  # fmt: skip


def _drafts(row: Row) -> Drafts:
    """Drafts by the layout's words, or else by the note's, unless that speaks of another run."""
    found = drafts_of(row.parallelism, row.note)
    if found.count or re.search(r"no mtp|no draft|target only|dspark|mtp", row.words.lower()):
        return found
    if re.search(r"\bmtp\b", row.note.lower()) and not re.search(r"with(out)? mtp", row.note.lower()):
        found = drafts_of(row.note)
    return found if found.count else _DRAFTS_OF_SOURCE.get(_paper(row), Drafts())


def _paper(row: Row) -> str:
    match = re.search(r"arxiv (\d{4}\.\d{5})", row.source.lower())
    return match[1] if match else ""


def decode_workload(setup: Setup, context_tokens: float) -> Workload:
    """One decoding step at a context: a pass of the MTP block for each draft, or one for all of DSpark's."""
    drafts = setup.draft_tokens
    if not drafts:
        return Workload(phase="decode", context_tokens=context_tokens)
    passes = 1 if setup.drafts.kind == "dspark" else drafts
    return Workload(
        phase="decode", context_tokens=context_tokens, new_tokens=1 + drafts, draft_tokens=passes,
        accepted_length=min(setup.accepted, 1.0 + passes),
    )  # fmt: skip


def _is_balanced(text: str) -> bool:
    return bool(
        re.search(r"forced (eplb|expert balance|balance)|balanced experts|perfect eplb", text.lower())
    )


def _on_chip(recipe: Precision, chip: Chip) -> Precision:
    """FP4 experts on a GPU without FP4 are widened to BF16 on the way in, and so are their activations."""
    is_fp4 = recipe.experts in ("mxfp4", "nvfp4")
    if is_fp4 and chip.family == "sm" and "fp4" not in chip.peak_flop_per_s:
        return replace(recipe, expert_activation="bf16")
    return recipe


def engine_of(row: Row) -> str:
    """The software family of a row, by its words: the names of data/chips/engines.json."""
    low = f"{row.words} {row.note}".lower()
    chip = (chip_of(row.chip) or "").lower()
    if chip.startswith("ascend"):
        if "vllm-ascend" in low or "afd plugin" in low:
            return "vllm-ascend"
        return "cann-950" if chip.startswith("ascend-950") else "cann-910"
    if chip.startswith("mi"):
        return "rocm"
    if "trt-llm" in low or "tensorrt" in low or "trtllm" in low:
        return "trtllm"
    if "deepseek production" in low or "profile-data" in low or "deepseek profile" in low:
        return "deepseek"
    # V4's kernels are new code in every engine.
    name = "vllm" if "vllm" in low else "sglang"
    return f"{name}-v4" if "v4" in row.model.lower() else name


def nearest_divisor(size: int, wanted: float) -> int:
    """The divisor of `size` that is closest to `wanted` on a logarithmic scale, the larger of two."""
    divisors = [n for n in range(1, size + 1) if size % n == 0]
    return min(divisors, key=lambda n: (abs(_log_ratio(n, wanted)), -n))


def _log_ratio(a: float, b: float) -> float:
    return math.log(a / b)


def decode_mapping(setup: Setup, devices: int, *, imbalance: float | None = None) -> Mapping:
    """The layout of one decoding instance on `devices`.

    Where a degree is not stated: pure tensor parallelism up to a node if TP is named, else data-parallel
    attention with experts over all devices. Expert degrees that do not divide the experts (EP72, EP320:
    spare copies fill the rest) become the nearest that does, with as many ranks.
    """
    found = _decode_layout(setup, devices, imbalance)
    return found if setup.forced_balance else found.replace(routing_skew=SKEW)


def _decode_layout(setup: Setup, devices: int, imbalance: float | None) -> Mapping:
    layout, config = setup.layout, setup.config
    uneven = 1.0 if setup.forced_balance else (UNEVEN if imbalance is None else imbalance)
    experts = config.n_routed_experts or 1
    if layout.dp and layout.dp > 1 and layout.expert_tp:
        return Mapping(dp=layout.dp, moe_tp=layout.expert_tp, expert_imbalance=1.0)
    if (layout.dp or 0) > 1 and (layout.tp or 1) > 1 and not layout.ep:
        ranks = layout.dp * layout.tp  # type: ignore[operator]
        return Mapping(dp=layout.dp or 1, attention_tp=layout.tp or 1, ep=ranks, expert_imbalance=uneven)
    is_tp = (layout.tp or 0) > 1 and not (layout.dp or 0) > 1
    if is_tp:
        tp = layout.tp or 1
        ep = min(layout.ep or 1, tp)
        return Mapping(attention_tp=tp, moe_tp=tp // ep, ep=ep, expert_imbalance=uneven if ep > 1 else 1.0)
    wanted = layout.ep or layout.dp or devices
    ranks = nearest_divisor(experts, wanted) if experts > 1 else 1
    # Past the scale-up domain engines hide expert traffic behind a second half-batch.
    is_wide = ranks > (setup.chip.scaleup_chips or 8) * setup.per_chip
    overlap = "waves" if layout.waves else "two batches" if layout.two_batches or is_wide else "none"
    return Mapping(dp=ranks, ep=ranks, expert_imbalance=uneven, overlap=overlap)  # type: ignore[arg-type]
