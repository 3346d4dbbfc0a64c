"""A serving run as a row describes it, and its steady state on an engine."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from workbench.accounting.kv_cache import FORMATS, entry_width, growth_bytes_per_token, released_format
from workbench.chips.engines import Engine
from workbench.chips.mapping import Mapping
from workbench.chips.memory_fit import largest_batch, total_bytes, weight_rows
from workbench.chips.steady import Load, Steady, colocated, disaggregated
from workbench.chips.validation.costs import step_band, step_curve, step_of
from workbench.chips.validation.rows import Row, Unpredictable, cache_hit
from workbench.chips.validation.setup import SKEW, Setup, decode_mapping, decode_workload
from workbench.chips.validation.text import Drafts, Layout, layout_of, number, pools_of
from workbench.chips.workload import Workload
from workbench.units import GIB

# Requests that engines run at once where a recipe does not say: SGLang's V4 recipes set or default to this.
RECIPE_REQUESTS = 256
# New tokens of one prefill pass of one attention group (SGLang's and vLLM's default for these models).
CHUNK_TOKENS = 8192
# SGLang keeps window entries for this share of the tokens in its pool (swa-full-tokens-ratio, V4 recipes).
WINDOW_POOL = 0.1
# Buffers of the fused dispatch-and-products kernel: bytes a token and hidden channel for each chosen expert,
# for as many tokens of each rank as SGLang's recipes allow (SGLANG_OPT_..._MAX_TOKENS_PER_RANK=8320).
FUSED_TOKENS, FUSED_BYTES = 8320, 3.0

# Graphs and buffers are cut to the device: at most this share of its memory. Assumed; measured runs on 141 GB
# and more leave as much, and SGLang's table of sizes gives 80 GB devices less.
MOST_RESERVED = 0.17


@dataclass(frozen=True)
class Service:
    """A serving run: what users ask for, and the chips that answer."""

    setup: Setup
    load: Load
    decode: Mapping
    decode_instances: int
    prefill: Mapping
    prefill_instances: int
    devices: int
    is_split: bool
    most_running: float
    waits_for_prompts: bool = False


def service_of(row: Row, setup: Setup, users: float, engine: Engine) -> Service:
    """The run that a row describes."""
    load = _load(row, users)
    pools = pools_of(row.parallelism)
    split = re.search(r"\bP,? (DP\d+TP\d+|\S+) \+ D,? (\S+?)[,\s]", row.parallelism.upper() + " ")
    setup = _with_drafts(setup, row, users)
    if pools:
        decode, instances = _pool(setup, pools.decode, pools.decode_ep, pools.decode_tp)
        decode = _quicker(setup, load, decode, instances, engine)
        ep = None if pools.prefill_tp else _prefill_ep(pools.prefill)
        prefill, others = _pool(setup, pools.prefill, ep, pools.prefill_tp)
        total = pools.decode + pools.prefill
        return _finish(setup, load, decode, instances, prefill, others, total, True, engine, math.inf)
    if split:
        decode = decode_mapping(replace(setup, layout=layout_of(split[2])), 16)
        prefill = decode_mapping(replace(setup, layout=layout_of(split[1])), 16)
        total = setup.devices or decode.ranks + prefill.ranks
        return _finish(setup, load, decode, 1, prefill, 1, total, True, engine, math.inf)
    devices = setup.devices or 8
    if setup.layout == layout_of("") or not (setup.layout.tp or setup.layout.dp or setup.layout.ep):
        setup = replace(setup, layout=_customary(row, setup, devices))
    mapping = decode_mapping(setup, devices)
    instances = max(devices // mapping.ranks, 1)
    most = _most_requests(row, setup) if setup.engine == "sglang-v4" else math.inf
    service = _finish(setup, load, mapping, instances, mapping, instances, devices, False, engine, most)
    return replace(service, waits_for_prompts=_delays_prefill(setup, mapping))


def _most_requests(row: Row, setup: Setup) -> float:
    """What SGLang's V4 recipes set as --max-running-requests, or leave to its default.

    Source: sgl-project/sglang, docs, deepseek-v4.jsx. Devices of 80 GB run half the default: rows 164 to 166
    of measurements.csv have throughput times TPOT of 130 with any number of users.
    """
    if "0813" in row.model and "throughput" in row.parallelism:
        return 2 * RECIPE_REQUESTS
    is_cut = setup.precision.name == "fp8" and setup.draft_tokens and (setup.layout.dp or 1) > 1
    small = setup.chip.device().need("memory_bytes") < 90 * GIB
    return RECIPE_REQUESTS / 2 if is_cut or small else RECIPE_REQUESTS


def _delays_prefill(setup: Setup, mapping: Mapping) -> bool:
    """SGLang's recipes for V4-Pro on B200 and B300 at high throughput set --enable-prefill-delayer.

    Source: sgl-project/sglang, docs, deepseek-v4.jsx (the flags of measurements.csv's cookbook rows).
    """
    is_host = setup.chip.key in ("b200", "b300")
    return setup.config_name == "deepseek-v4-pro" and is_host and mapping.overlap == "waves"


def _customary(row: Row, setup: Setup, devices: int) -> Layout:
    """The layout that a recipe's name stands for, where no degree is written."""
    low = row.parallelism.lower()
    if "disagg" in low:
        raise Unpredictable("neither pools nor layout are stated")
    if "high throughput" in low or "balanced" in low:
        return layout_of(f"DP{devices} attention + EP{devices}" + (" (MegaMoE)" if "high" in low else ""))
    return layout_of(f"TP{min(devices, 8)}")


def _load(row: Row, users: float) -> Load:
    """Mean lengths; "drawn uniformly" runs give their means in the note."""
    means = re.search(r"mean input about ([\d.]+)K, mean output about ([\d.]+)K", row.note)
    if means:
        load = Load(users, float(means[1]) * 1000, float(means[2]) * 1000, lengths="spread")
    else:
        load = Load(users, number(row.input_len) or 1.0, number(row.output_len) or 1.0)
    load = replace(load, prefix_hit=cache_hit(row))
    if re.search(r"range ratio 1\.0|fixed \d+/\d+", row.note):
        load = replace(load, lengths="equal")
    if "deepseek-v4-benchmarks" in row.source:
        # The cookbook's own list of requests by number of users.
        return replace(load, requests=32.0 if users <= 16 else min(2 * users, 4096.0))
    if "inferencex" in row.source.lower():
        return replace(load, requests=10 * users)
    return load


def _with_drafts(setup: Setup, row: Row, users: float) -> Setup:
    """ "MTP" without a number: three drafts where few users share many chips, else one."""
    if setup.drafts.kind == "mtp" and not re.search(r"MTP\s*\d|draft \d|\d draft", row.parallelism):
        pools = pools_of(row.parallelism)
        devices = pools.decode if pools else setup.devices or 8
        return replace(setup, drafts=Drafts(3 if users / devices <= 8 else 1, None, "mtp"))
    return setup


def _pool(setup: Setup, devices: int, ep: int | None, tp: int | None) -> tuple[Mapping, int]:
    """The layout of one instance in a pool of devices, and how many instances there are."""
    if ep and ep > 1:
        ep = min(ep, devices)
        return Mapping(dp=ep, ep=ep, expert_imbalance=1.1, routing_skew=SKEW), max(devices // ep, 1)
    sizes = [tp] if tp else [n for n in (4, 8, 16) if n <= devices] or [devices]
    for size in sizes:
        mapping = Mapping(attention_tp=size, moe_tp=size, routing_skew=SKEW)
        held = float(total_bytes(weight_rows(setup.config, mapping, setup.precision)))
        if held < 0.8 * setup.chip.device().need("memory_bytes"):
            break
    return mapping, max(devices // mapping.ranks, 1)


def _quicker(setup: Setup, load: Load, mapping: Mapping, instances: int, engine: Engine) -> Mapping:
    """The attention of an instance with experts over all ranks: data- or tensor-parallel, as is quicker.

    "EP8" names both: recipes for few users share the heads, so that no group idles, and those for many the
    requests (SemiAnalysisAI/InferenceX: tep8 and dep8).
    """
    ranks = mapping.dp
    if ranks == 1 or ranks > 8 or setup.config.num_attention_heads % ranks:
        return mapping
    heads, context = mapping.replace(dp=1, attention_tp=ranks), load.decode_context_tokens
    # Shared heads keep every request's cache on every rank.
    if load.users / instances > _fits(setup, context + load.output_tokens / 2, heads, engine):
        return mapping
    return min((mapping, heads), key=lambda m: decode_curve(setup, context, m, instances, engine)(load.users))


def _prefill_ep(devices: int) -> int | None:
    return 8 if devices % 8 == 0 else 4 if devices % 4 == 0 else None


def _finish(
    setup: Setup, load: Load, decode: Mapping, instances: int, prefill: Mapping, others: int, devices: int,
    is_split: bool, engine: Engine, most: float,
) -> Service:  # fmt: skip
    fits = _fits(setup, load.input_tokens + load.output_tokens, decode, engine)
    if fits < 1:
        raise Unpredictable("the model does not fit the layout that is stated, or else customary: TP8")
    return Service(
        setup, load, decode, instances, prefill, others, devices, is_split,
        min(fits * decode.dp * instances, most),
    )  # fmt: skip


def _fits(setup: Setup, context: float, mapping: Mapping, engine: Engine) -> float:
    """Sequences of such a context that one attention group has memory for."""
    memory_bytes = setup.chip.device().need("memory_bytes")
    room = memory_bytes * engine.memory_share.value
    reserve = min(engine.reserve_bytes.value, MOST_RESERVED * memory_bytes)
    if mapping.overlap == "waves":
        k = setup.config.num_experts_per_tok or 1
        reserve += FUSED_TOKENS * FUSED_BYTES * setup.config.hidden_size * k
    if setup.engine == "sglang-v4":
        return _pool_batch(setup, context, mapping, room, reserve)
    return largest_batch(
        setup.config, decode_workload(setup, context), mapping, room, setup.precision, engine_bytes=reserve
    )


def _pool_batch(setup: Setup, context: float, mapping: Mapping, room: float, reserve: float) -> float:
    """Sequences that fit where the engine keeps window entries for a share of all tokens."""
    weights = weight_rows(setup.config, mapping, setup.precision, with_mtp=bool(setup.draft_tokens))
    left = room - reserve - float(total_bytes(weights))
    entry = FORMATS[released_format(setup.config)].entry.entry_bytes(*entry_width(setup.config))
    a_token = growth_bytes_per_token(setup.config) + WINDOW_POOL * setup.config.num_hidden_layers * entry
    return max(left / (a_token * context), 0.0)


def state_of(service: Service, engine: Engine) -> Steady:
    """The steady state of a serving run."""
    setup, load = service.setup, service.load
    step_s = decode_curve(setup, load.decode_context_tokens, service.decode, service.decode_instances, engine)

    pass_s, most_prompts = _prefill(service, engine)
    if service.is_split:
        full = pass_s(most_prompts) / most_prompts / service.prefill_instances
        return disaggregated(load, step_s, setup.accepted, full, pass_s(1.0), service.most_running)
    return colocated(
        load, step_s, setup.accepted, pass_s, most_prompts, service.most_running,
        waits_for_prompts=service.waits_for_prompts, riding=riding(service),
    )  # fmt: skip


def riding(service: Service) -> Callable[[float], float]:
    """Which share of the running requests decodes in a prefill pass.

    vLLM and TensorRT-LLM put prompts and tokens into one batch. SGLang does not, but its data-parallel groups
    choose for themselves: those without a prompt decode meanwhile, unless there are drafts.
    Source: sgl-project/sglang, scheduler.py, get_next_batch_to_run.
    """
    if service.setup.engine in ("vllm", "vllm-v4", "vllm-ascend", "trtllm"):
        return lambda prompts: 1.0
    groups = service.prefill.dp
    if groups == 1 or service.setup.drafts.count:
        return lambda prompts: 0.0
    return lambda prompts: max(1 - prompts / groups, 0.0)


def decode_curve(
    setup: Setup, context: float, mapping: Mapping, instances: float, engine: Engine
) -> Callable[[float], float]:
    """Seconds of a decoding step by running requests, spread evenly; with few of them some groups idle."""
    workload, groups = decode_workload(setup, context), mapping.dp * instances
    full = step_curve(setup, workload, mapping, engine)
    if mapping.dp == 1:
        return lambda running: full(max(running / groups, 1.0))
    alone = step_curve(setup, workload, mapping, engine, busy_groups=1 / mapping.dp)(1.0)

    def step_s(running: float) -> float:
        here = max(running / instances, 1.0)
        if here >= mapping.dp:
            return full(here / mapping.dp)
        return alone + (here - 1) / (mapping.dp - 1) * (full(1.0) - alone)

    return step_s


def _prefill(service: Service, engine: Engine) -> tuple[Callable[[float], float], float]:
    """Seconds of a prefill pass of one instance by prompts in it, and how many it can hold.

    Groups of a data-parallel instance take a prompt each before any takes a second.
    """
    setup, load, mapping = service.setup, service.load, service.prefill
    new = max(load.input_tokens * (1 - load.prefix_hit), 1.0)
    workload = Workload(phase="prefill", context_tokens=load.input_tokens, new_tokens=new)
    if new > CHUNK_TOKENS:
        workload = workload.replace(chunk_tokens=CHUNK_TOKENS)
        once = float(step_of(setup, workload, mapping, engine).expected)
        return (lambda prompts: once), float(mapping.dp)
    full = step_curve(setup, workload, mapping, engine)
    alone = step_curve(setup, workload, mapping, engine, busy_groups=1 / mapping.dp)(1.0)

    def pass_s(prompts: float) -> float:
        share = (prompts - 1) / max(mapping.dp - 1, 1)
        return full(prompts / mapping.dp) if share >= 1 else alone + share * (full(1.0) - alone)

    return pass_s, mapping.dp * max(CHUNK_TOKENS // new, 1.0)


def band_of(service: Service, state: Steady, engine: Engine) -> tuple[float, float]:
    """Bounds of the time per output token over its expected value: those of a decoding step."""
    workload = decode_workload(service.setup, service.load.decode_context_tokens)
    batch = max(state.running / service.decode_instances / service.decode.dp, 1.0)
    return step_band(service.setup, workload, service.decode, engine, batch)
