"""Serving as a stream of requests: waiting times, goodput, prefixes on disk, cost and energy."""

from workbench.chips.serving.deploy import deploy
from workbench.chips.serving.load import highest_rate, load_rows
from workbench.chips.serving.money import ServiceDay, TokenCost, owned, service_day, token_cost
from workbench.chips.serving.outcome import Limits, Outcome
from workbench.chips.serving.pace import LinearPace, Pace, TablePace, table_pace
from workbench.chips.serving.paging import UNLIMITED, Paging, paging_of
from workbench.chips.serving.pool import Pool
from workbench.chips.serving.prefix import Disk, PrefixPolicy, PrefixStore, prefix_policy
from workbench.chips.serving.simulate import Deployment, Transfer, simulate
from workbench.chips.serving.speculation import Drafts, drafts_of
from workbench.chips.serving.traffic import Lengths, Requests, Traffic, draw, trace

__all__ = [
    "UNLIMITED",
    "Deployment",
    "Disk",
    "Drafts",
    "Lengths",
    "Limits",
    "LinearPace",
    "Outcome",
    "Pace",
    "Paging",
    "Pool",
    "PrefixPolicy",
    "PrefixStore",
    "Requests",
    "ServiceDay",
    "TablePace",
    "TokenCost",
    "Traffic",
    "Transfer",
    "deploy",
    "drafts_of",
    "draw",
    "highest_rate",
    "load_rows",
    "owned",
    "paging_of",
    "prefix_policy",
    "service_day",
    "simulate",
    "table_pace",
    "token_cost",
    "trace",
]
