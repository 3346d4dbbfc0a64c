"""What is asked of a model in one pass, and the part of it that one rank holds.

Every size may be a numpy array: fields of one workload broadcast against each other, so that a sweep of
batches and contexts is one call.

MTP: multi-token prediction. TP, EP, CP: tensor, expert and context parallel.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from workbench.accounting.speculation import tokens_per_step
from workbench.config import ModelConfig

Size = Any  # a number, or an array of numbers that broadcasts
Phase = Literal["prefill", "decode", "train"]
PHASES = ("prefill", "decode", "train")
RECOMPUTE = ("none", "elementwise", "full")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One pass over `batch` sequences.

    phase "decode": each sequence has one new token that sees `context_tokens` tokens, itself included,
        and `draft_tokens` more to check; the sizes are those of one step.
    phase "prefill": prompts of `context_tokens`, of which the share `prefix_hit` is found in a cache;
        `new_tokens` may say instead how many are computed.
    phase "train": whole sequences of `context_tokens`, forward and backward.

    new_tokens in decoding: tokens checked in a step, if not 1 + draft_tokens; a block that
        drafts several tokens in one pass has draft_tokens 1.
    chunk_tokens: a prefill computes at most so many new tokens of a sequence in one pass (see `chunks`).
    acceptance: chance that a draft is accepted when those before it were; or accepted_length, the mean
        number of tokens a step yields, as measured. With drafts, one of the two must be given.
    logits: a prefill needs the output head at the last position of each prompt only, or at "all".
    recompute: what the backward pass computes again: "none", "elementwise" (norms, activations, mixing),
        or "full" (the whole forward pass).
    cache_format: a key of accounting.FORMATS; None is the format of the model's own release.

    Raises:
        ValueError: a phase or a share that does not exist, or drafts without an acceptance.
    """

    phase: Phase
    context_tokens: Size
    batch: Size = 1
    new_tokens: Size | None = None
    prefix_hit: Size = 0.0
    chunk_tokens: int | None = None
    draft_tokens: int = 0
    acceptance: float | None = None
    accepted_length: float | None = None
    logits: Literal["last", "all"] = "last"
    recompute: Literal["none", "elementwise", "full"] = "none"
    cache_format: str | None = None

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise ValueError(f"Workload: phase {self.phase!r} is unknown; choose one of {PHASES}")
        if self.recompute not in RECOMPUTE:
            raise ValueError(f"Workload: recompute {self.recompute!r} is unknown; choose one of {RECOMPUTE}")
        for name in ("context_tokens", "batch"):
            if np.any(np.asarray(getattr(self, name)) <= 0):
                raise ValueError(f"Workload: {name} is {getattr(self, name)}; it must be positive; change it")
        hit = np.asarray(self.prefix_hit)
        if np.any((hit < 0) | (hit >= 1)):
            raise ValueError(
                f"Workload: prefix_hit is {self.prefix_hit}; it is a share in [0, 1): the last token of a "
                f"prompt is always computed; change it"
            )
        if self.new_tokens is not None:
            new = np.asarray(self.new_tokens)
            if np.any(new <= 0) or (self.phase != "decode" and np.any(new > np.asarray(self.context_tokens))):
                raise ValueError(
                    f"Workload: new_tokens is {self.new_tokens}; it must lie in [1, context_tokens="
                    f"{self.context_tokens}]; change it"
                )
        if self.draft_tokens and self.acceptance is None and self.accepted_length is None:
            raise ValueError(
                f"Workload: draft_tokens is {self.draft_tokens} and no acceptance is given; a step's yield "
                f"depends on it; give acceptance= or accepted_length="
            )
        most = np.max(self.tokens_computed)
        if self.accepted_length is not None and not 1 <= self.accepted_length <= most:
            raise ValueError(
                f"Workload: accepted_length is {self.accepted_length}; a step that computes {most} tokens of "
                f"each sequence yields 1 to {most}; change one of them"
            )

    @property
    def tokens_computed(self) -> Size:
        """Tokens of each sequence that the pass computes."""
        if self.new_tokens is not None:
            return self.new_tokens
        if self.phase == "decode":
            return 1 + self.draft_tokens
        if self.phase == "train":
            return self.context_tokens
        hit = np.floor(np.asarray(self.prefix_hit) * np.asarray(self.context_tokens))
        new = np.asarray(self.context_tokens) - hit
        return new if new.ndim else float(new)

    @property
    def tokens_before(self) -> Size:
        """Tokens of each sequence that are in the cache when the pass begins."""
        if self.phase == "decode":
            return self.context_tokens - 1
        return self.context_tokens - self.tokens_computed

    @property
    def tokens_per_step(self) -> float:
        """Tokens that one decoding step yields for each sequence, on average."""
        if self.accepted_length is not None:
            return self.accepted_length
        return tokens_per_step(self.acceptance or 0.0, self.draft_tokens)

    def replace(self, **changes: Any) -> Workload:
        """A copy with some fields changed, checked anew."""
        return dataclasses.replace(self, **changes)

    def chunks(self) -> Workload:
        """A chunked prefill as passes: the same workload with one entry a pass along a last axis.

        All chunks but the last are full. A workload without chunk_tokens comes back as it is.

        Raises:
            ValueError: prompts of several lengths at once: they have different numbers of passes.
        """
        if self.chunk_tokens is None or self.phase != "prefill":
            return self
        new, before = np.asarray(self.tokens_computed), np.asarray(self.tokens_before)
        if new.ndim or before.ndim:
            raise ValueError(
                f"Workload.chunks: context_tokens has shape {np.broadcast(new, before).shape}; prompts of "
                f"several lengths have different numbers of chunks; cut one length at a time"
            )
        ends = np.minimum(np.arange(1, -(-int(new) // self.chunk_tokens) + 1) * self.chunk_tokens, new)
        sizes = np.diff(ends, prepend=0.0)
        return self.replace(
            context_tokens=before + ends, new_tokens=sizes, chunk_tokens=None, prefix_hit=0.0,
            batch=_lifted(self.batch),
        )  # fmt: skip


def _lifted(size: Size) -> Size:
    """A last axis of length one for arrays; numbers stay numbers."""
    return size[..., None] if isinstance(size, np.ndarray) and size.ndim else size


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The part of a model that one rank holds, and how many ranks share what.

    A workload's batch is that of one attention group. `attention_tp` ranks share the heads, the dense
    feed-forward and the shared expert; the routed experts are spread over `ep` ranks, each expert cut into
    `moe_tp`. The ep × moe_tp ranks bring ep · moe_tp / attention_tp batches to the experts. `cp` ranks share
    the tokens of a sequence (prefill, training) or its cache (decoding). Layers [first_layer, last_layer)
    are a pipeline stage; the embedding belongs to the first, head and MTP to the last. `vocab_tp` ranks
    share embedding and head.
    """

    attention_tp: int = 1
    moe_tp: int = 1
    ep: int = 1
    cp: int = 1
    vocab_tp: int = 1
    first_layer: int = 0
    last_layer: int | None = None

    def __post_init__(self) -> None:
        for name in ("attention_tp", "moe_tp", "ep", "cp", "vocab_tp"):
            if getattr(self, name) < 1:
                raise ValueError(f"Shard: {name} is {getattr(self, name)}; it counts ranks; use 1 or more")

    @property
    def batches_at_experts(self) -> float:
        """Attention groups whose tokens meet at one set of experts."""
        return max(self.ep * self.moe_tp / self.attention_tp, 1.0)

    def check(self, config: ModelConfig) -> None:
        """Raises:
        ValueError: a degree that does not divide what it cuts, or layers that do not exist.
        """
        cuts = [("attention_tp", config.num_attention_heads, "num_attention_heads")]
        if config.o_groups:
            cuts.append(("attention_tp", config.o_groups, "o_groups"))
        if config.n_routed_experts and config.moe_intermediate_size:
            cuts += [
                ("ep", config.n_routed_experts, "n_routed_experts"),
                ("moe_tp", config.moe_intermediate_size, "moe_intermediate_size"),
            ]
        for degree, size, name in cuts:
            if size % getattr(self, degree):
                divisors = [n for n in range(1, size + 1) if size % n == 0]
                raise ValueError(
                    f"Shard: {degree} is {getattr(self, degree)}; it must divide {name}={size}; "
                    f"choose one of {divisors}"
                )
        last = config.num_hidden_layers if self.last_layer is None else self.last_layer
        if not 0 <= self.first_layer < last <= config.num_hidden_layers:
            raise ValueError(
                f"Shard: layers [{self.first_layer}, {last}) are no part of num_hidden_layers="
                f"{config.num_hidden_layers}; change first_layer or last_layer"
            )


def as_floats(*sizes: npt.ArrayLike) -> tuple[Size, ...]:
    """Numbers as float, arrays as float64 arrays: plain numbers keep the arithmetic of one setting quick."""
    return tuple(np.asarray(s, dtype=np.float64) if np.ndim(s) else float(s) for s in sizes)  # type: ignore[arg-type]
