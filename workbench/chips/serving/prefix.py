"""Prefixes kept on disk: what a prompt finds there, what it must run again, and what that moves.

Compressed entries are always stored, in whole blocks. The window entries, about eight times as large, are
stored for every token (full), at every p-th token (periodic), or never (zero); what is missing is run
again before the prompt can go on.

Report: section 3.6.2.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from workbench.accounting.kv_cache import (
    FORMATS,
    entry_width,
    growth_bytes_per_token,
    prefix_state_bytes_per_token,
    recomputed_tokens,
    released_format,
    window_bytes,
)
from workbench.accounting.paging import block_tokens
from workbench.chips.serving.paging import PLAIN_BLOCK_TOKENS
from workbench.config import ModelConfig


@dataclass(frozen=True)
class PrefixPolicy:
    """Sizes of a prefix under one policy.

    entry_bytes: of one token, compressed entries; window_bytes: stored for one token on average;
    state_bytes: read to go on from a stored point; period: tokens between such points, None for none;
    rerun_tokens: most that are ever run again.
    """

    block_tokens: int
    entry_bytes: float
    window_bytes: float
    state_bytes: float
    period: int | None
    rerun_tokens: int

    def found(self, stored_tokens: float, prompt_tokens: int) -> int:
        """Tokens of a prompt that the store covers: whole blocks, and never the last token."""
        usable = min(int(stored_tokens), prompt_tokens - 1)
        return usable // self.block_tokens * self.block_tokens

    def run_again(self, found_tokens: int) -> int:
        """Covered tokens that must be run again to rebuild the windows."""
        if not found_tokens:
            return 0
        missing = found_tokens if self.period is None else found_tokens % self.period
        return min(missing, self.rerun_tokens)

    def read_bytes(self, found_tokens: int) -> float:
        return found_tokens * self.entry_bytes + self.state_bytes if found_tokens else 0.0

    def stored_bytes(self, tokens: float) -> float:
        """Disk space of a prefix."""
        return tokens * (self.entry_bytes + self.window_bytes)


def prefix_policy(config: ModelConfig, period: int | None) -> PrefixPolicy:
    """The report's policies: period 1 is full, p periodic, None zero. One policy for models without a window.

    Raises:
        ValueError: a period below 1.
    """
    if period is not None and period < 1:
        raise ValueError(
            f"prefix_policy: period is {period}; windows are kept every 1 or more tokens; use None for never"
        )
    growth = growth_bytes_per_token(config, state="none")
    if config.model_type != "deepseek_v4":
        return PrefixPolicy(PLAIN_BLOCK_TOKENS, growth, 0.0, 0.0, 1, 0)
    width, rope = entry_width(config)
    state = window_bytes(config, FORMATS[released_format(config)].entry.entry_bytes(width, rope))
    return PrefixPolicy(
        block_tokens(config), growth, prefix_state_bytes_per_token(config, period),
        0.0 if period is None else state, period, recomputed_tokens(config, period),
    )  # fmt: skip


@dataclass(frozen=True)
class Disk:
    """Where prefixes lie: capacity, and bandwidth in and out, shared by all instances."""

    capacity_bytes: float
    read_byte_per_s: float
    write_byte_per_s: float

    def __post_init__(self) -> None:
        for name in ("capacity_bytes", "read_byte_per_s", "write_byte_per_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Disk: {name} is {getattr(self, name)}; it must be above 0; change it")


@dataclass(frozen=True)
class Found:
    """What a lookup gives: covered tokens, those run again, and when the rest has been read."""

    tokens: int
    run_again: int
    ready_s: float


class PrefixStore:
    """Prefixes by key, the least recently used thrown out first.

    Reads queue behind reads, writes behind writes. A prefix can be found once it has been written.
    """

    def __init__(self, policy: PrefixPolicy, disk: Disk) -> None:
        self.policy, self.disk = policy, disk
        self._kept: OrderedDict[int, tuple[float, float]] = OrderedDict()  # key -> tokens, usable from
        self.used_bytes = self.read_bytes = self.written_bytes = 0.0
        self._read_free_s = self._write_free_s = 0.0

    def look_up(self, now: float, wanted: list[tuple[int, int]], prompt_tokens: int) -> Found:
        """The longest prefix among (key, tokens in common); it counts as used.

        What would be run again anyway is not read.
        """
        best, best_key = 0, None
        for key, common in wanted:
            tokens, usable_s = self._kept.get(key, (0.0, 0.0))
            covered = self.policy.found(min(tokens, common), prompt_tokens) if usable_s <= now else 0
            if covered - self.policy.run_again(covered) > best - self.policy.run_again(best):
                best, best_key = covered, key
        if best_key is None:
            return Found(0, 0, now)
        self._kept.move_to_end(best_key)
        size = self.policy.read_bytes(best)
        self.read_bytes += size
        self._read_free_s = max(self._read_free_s, now) + size / self.disk.read_byte_per_s
        return Found(best, self.policy.run_again(best), self._read_free_s)

    def keep(self, now: float, key: int, tokens: int) -> None:
        """Write what is new of a prefix, and throw out others until it fits."""
        whole = tokens // self.policy.block_tokens * self.policy.block_tokens
        old, _ = self._kept.pop(key, (0.0, 0.0))
        size = self.policy.stored_bytes(max(whole, old))
        if whole == 0 or size > self.disk.capacity_bytes:
            self.used_bytes -= self.policy.stored_bytes(old)
            return
        new = self.policy.stored_bytes(max(whole - old, 0.0))
        self.written_bytes += new
        self.used_bytes += new
        self._write_free_s = max(self._write_free_s, now) + new / self.disk.write_byte_per_s
        while self.used_bytes > self.disk.capacity_bytes:
            _, (gone, _) = self._kept.popitem(last=False)
            self.used_bytes -= self.policy.stored_bytes(gone)
        self._kept[key] = (max(float(whole), old), self._write_free_s)

    @property
    def prefixes(self) -> int:
        """How many are kept."""
        return len(self._kept)
