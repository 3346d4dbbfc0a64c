"""Deployments from the chip simulator: a model, a cluster, how it is cut, and the traffic it must carry."""

from __future__ import annotations

from workbench.accounting.kv_cache import growth_bytes_per_token, kv_cache_bytes
from workbench.chips.clusters import Cluster
from workbench.chips.engines import Engine
from workbench.chips.mapping import Mapping
from workbench.chips.precision import RELEASED, Precision
from workbench.chips.serving.pace import table_pace
from workbench.chips.serving.paging import UNLIMITED, paging_of
from workbench.chips.serving.pool import Order, Pool
from workbench.chips.serving.prefix import Disk, prefix_policy
from workbench.chips.serving.simulate import Deployment, Transfer
from workbench.chips.serving.speculation import Drafts
from workbench.chips.serving.traffic import Requests
from workbench.chips.topology import topology_of
from workbench.config import ModelConfig


def deploy(
    config: ModelConfig,
    cluster: Cluster,
    mapping: Mapping,
    engine: Engine,
    requests: Requests,
    *,
    instances: int = 1,
    prefill: tuple[Mapping, int] | None = None,
    precision: Precision = RELEASED,
    drafts: Drafts | None = None,
    order: Order = "prompts first",
    chunk_tokens: int = 8192,
    most_requests: int | None = None,
    prefix_period: int | None = None,
    disk: Disk | None = None,
    end: str = "expected",
) -> Deployment:
    """`instances` replicas of a mapping, with memory for requests like these.

    prefill: a mapping and a number of instances for a pool of its own; then `mapping` only decodes, and
    caches travel over the cluster's outermost links, one device sending for each attention group. disk: keeps
    prefixes under the policy of `prefix_period` (see `prefix_policy`). end: which bound of the chip simulator
    sets the pace.

    Raises:
        ValueError: more devices than the cluster has, or what does not fit.
    """
    drafts = drafts or Drafts()
    used = mapping.ranks * instances + (prefill[0].ranks * prefill[1] if prefill else 0)
    if used > cluster.devices:
        raise ValueError(
            f"deploy: the instances take {used} devices; {cluster.key} has {cluster.devices}; use "
            f"fewer instances or more chips"
        )
    devices = int(cluster.chip.logical_devices)
    yields = drafts.tokens_per_step if drafts.draft_tokens else None

    def pool(mine: Mapping, count: int, *, decodes: bool) -> Pool:
        pace = table_pace(
            config, cluster, mine, engine, precision=precision, draft_tokens=drafts.draft_tokens,
            accepted_length=yields, end=end,
        )  # fmt: skip
        whole = requests.prompt_tokens + requests.output_tokens
        paging = UNLIMITED
        if decodes:
            paging = paging_of(
                config, cluster, mine, engine,
                mean_tokens=float((requests.prompt_tokens + requests.output_tokens / 2).mean()),
                longest_tokens=int(whole.max()), chunk_tokens=chunk_tokens, most_requests=most_requests,
                precision=precision, draft_tokens=drafts.draft_tokens,
            )  # fmt: skip
        return Pool(pace, mine.ranks / devices, count, paging, chunk_tokens, mine.dp, order)

    prefixes = (prefix_policy(config, prefix_period), disk) if disk else None
    if prefill is None:
        return Deployment(pool(mapping, instances, decodes=True), drafts=drafts, prefixes=prefixes)
    outer = topology_of(cluster).tiers[-1].link
    at = kv_cache_bytes(config, 0, state="windows and buffers", cache_format=precision.cache_format)
    transfer = Transfer(
        token_bytes=growth_bytes_per_token(config, cache_format=precision.cache_format),
        request_bytes=float(at),
        byte_per_s=outer.bandwidth_byte_per_s * outer.all_to_all_share.value * prefill[0].dp,
        delay_s=outer.launch_s.value,
    )  # fmt: skip
    return Deployment(
        pool(prefill[0], prefill[1], decodes=False), pool(mapping, instances, decodes=True), transfer, drafts,
        prefixes,
    )  # fmt: skip
