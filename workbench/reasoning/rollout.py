"""Rollouts: several answers to each prompt, drawn side by side from one reading of it.

The prompts are read once; then every row of a group starts from a copy of its prompt's cache (blocks of
the compressed store are shared). Rows that end leave the batch. Every row has random numbers of its own,
so what it draws depends neither on its neighbours nor on where the run was cut and resumed.

Axes: p prompts, g rows of a group, r = p·g rows, t tokens, v vocabulary.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from workbench.model import Cache, Sampling, Transformer
from workbench.model.generate import pad, read, stopping
from workbench.model.prompts import check_room, prompt_rows
from workbench.model.sampling import RowUniforms, draw
from workbench.reasoning.routes import recorded
from workbench.reasoning.write_ahead import WriteAheadLog

FREE = Sampling(temperature=1.0)


@dataclass(frozen=True)
class Rollouts:
    """Answers. Row i answers prompt i // group_size; a stop token is the last of its row's tokens.

    `logprobs` are of the distribution that was drawn from: temperature and filters included. `kept` says,
    for each token of each row, which words the filters left (None where there was no filter), and `routes`
    which experts served each token that was read, prompt included (None unless recorded): (s, l, k) a row.
    """

    prompts: list[list[int]]
    group_size: int
    tokens: list[list[int]]
    logprobs: list[list[float]]
    stopped: list[bool]
    sampling: Sampling = FREE
    kept: list[Tensor] | None = None
    routes: list[Tensor] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.tokens))

    def prompt(self, row: int) -> list[int]:
        return self.prompts[row // self.group_size]


@torch.no_grad()
def sample(
    policy: Transformer,
    prompts: Sequence[Sequence[int]],
    group_size: int,
    max_new_tokens: int,
    *,
    sampling: Sampling = FREE,
    seed: int = 0,
    stop_tokens: Collection[int] | None = None,
    log: str | Path | None = None,
    keep_routes: bool = False,
    shift: Callable[[Sequence[Sequence[int]]], Tensor] | None = None,
) -> Rollouts:
    """Draw group_size answers to every prompt.

    Args:
        stop_tokens: the configuration's eos_token_id if None.
        log: a write-ahead log. If it exists, the rollout goes on from it and draws what an uninterrupted
            one would have drawn.
        keep_routes: record which experts served each token (not together with a log).
        shift: what is added to the next logits, from the texts so far: r texts -> (r, v), as a watermark
            does (not together with a log).

    Raises:
        ValueError: prompts as generate.generate, group_size below 1, a log of another rollout, or a log
            together with keep_routes or a shift.
    """
    rows = prompt_rows(prompts, None, policy.v4.vocab_size)
    check_room(rows, max_new_tokens, policy.v4.max_position_embeddings)
    if group_size < 1 or (log is not None and (keep_routes or shift is not None)):
        raise ValueError(
            f"sample: got group_size={group_size}, log={log}, keep_routes={keep_routes}, shift={shift}; "
            f"needs a group of 1 or more, and a log or one of the others, not both; change one"
        )
    count, stop = len(rows) * group_size, stopping(policy, stop_tokens)
    generator = torch.Generator().manual_seed(seed)
    uniforms = RowUniforms(sampling, generator, count, policy.device)(range(count), max_new_tokens)
    if log is None:
        return _sample(
            policy, rows, group_size, max_new_tokens, sampling, stop, uniforms, None, keep_routes, shift
        )
    identity = {
        "prompts": crc32(repr(rows).encode()),
        "group_size": group_size,
        "max_new_tokens": max_new_tokens,
        "sampling": repr(sampling),
        "stop": sorted(stop),
        "seed": seed,
        "policy": fingerprint(policy),
    }
    with WriteAheadLog(log, count, identity) as own:
        return _sample(policy, rows, group_size, max_new_tokens, sampling, stop, uniforms, own, False)


def fingerprint(policy: Transformer) -> int:
    """A checksum of the weights: another policy draws other tokens."""
    checksum = 0
    for tensor in policy.state_dict().values():
        checksum = crc32(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes(), checksum)
    return checksum


def _sample(
    policy: Transformer,
    prompts: list[list[int]],
    group_size: int,
    max_new_tokens: int,
    sampling: Sampling,
    stop: Collection[int],
    uniforms: Tensor,
    log: WriteAheadLog | None,
    keep_routes: bool,
    shift: Callable[[Sequence[Sequence[int]]], Tensor] | None = None,
) -> Rollouts:
    count = len(prompts) * group_size
    tokens = [list(row) for row in log.tokens] if log else [[] for _ in range(count)]
    logprobs = [list(row) for row in log.logprobs] if log else [[] for _ in range(count)]
    stopped = [bool(row) and row[-1] in stop for row in tokens]
    has_filter = sampling.top_p < 1 or sampling.min_p > 0
    kept: list[list[Tensor]] = [[] for _ in range(count)]
    routes: list[list[Tensor]] = [[] for _ in range(count)]

    recording: AbstractContextManager[list[list[Tensor]]] = (
        recorded(policy) if keep_routes else nullcontext([])
    )
    with recording as seen:
        seats, cache, logits = _start(policy, prompts, group_size, max_new_tokens, tokens, stopped)
        if keep_routes:
            _note_prompts(seen, prompts, group_size, routes)
        while seats:
            places = torch.tensor([len(tokens[row]) for row in seats], device=uniforms.device)
            own = uniforms[torch.tensor(seats, device=uniforms.device), places]
            if shift is not None:
                logits = logits + shift([prompts[row // group_size] + tokens[row] for row in seats])
            p = sampling.probabilities(logits) if has_filter or sampling.is_greedy else None
            if p is None:
                log_p = (logits.float() / sampling.temperature).log_softmax(dim=-1)
                chosen = draw(log_p.exp(), own)
            else:
                log_p = p.log()
                chosen = p.argmax(dim=-1) if sampling.is_greedy else draw(p, own)
            new = chosen.tolist()
            new_logprobs = log_p.gather(1, chosen[:, None])[:, 0].tolist()
            if log:
                log.append(seats, new, new_logprobs)
            for row, token, logprob in zip(seats, new, new_logprobs, strict=True):
                tokens[row].append(token)
                logprobs[row].append(logprob)
                stopped[row] = token in stop
            if has_filter and p is not None:
                for seat, row in enumerate(seats):
                    kept[row].append(p[seat] > 0)
            going = [
                seat
                for seat, row in enumerate(seats)
                if not stopped[row] and len(tokens[row]) < max_new_tokens
            ]
            if not going:
                break
            if len(going) < len(seats):
                cache.reorder(going)
                seats = [seats[seat] for seat in going]
            logits = _read(policy, cache, [[tokens[row][-1]] for row in seats])
            if keep_routes:
                _note_step(seen, seats, routes)
    return Rollouts(
        prompts,
        group_size,
        tokens,
        logprobs,
        stopped,
        sampling,
        [torch.stack(own) for own in kept] if has_filter else None,
        [torch.cat(own) for own in routes] if keep_routes else None,
    )


def _start(
    policy: Transformer,
    prompts: list[list[int]],
    group_size: int,
    max_new_tokens: int,
    tokens: list[list[int]],
    stopped: list[bool],
) -> tuple[list[int], Cache, Tensor]:
    """The rows still to be continued, the cache with all they hold, and their next logits."""
    seats = [row for row, own in enumerate(tokens) if not stopped[row] and len(own) < max_new_tokens]
    cache = policy.new_cache(len(prompts), max(map(len, prompts)) + max_new_tokens - 1)
    logits = _read(policy, cache, prompts)
    if seats:
        cache.reorder([row // group_size for row in seats])
        logits = logits[torch.tensor([row // group_size for row in seats], device=logits.device)]
        unread = [tokens[row] for row in seats]
        if any(unread):
            again = _read(policy, cache, unread)
            has_new = torch.tensor([bool(own) for own in unread], device=logits.device)
            logits = torch.where(has_new[:, None], again, logits)
    return seats, cache, logits


def _read(policy: Transformer, cache: Cache, rows: Sequence[Sequence[int]]) -> Tensor:
    """Read tokens into the cache; logits after each row's last: (rows, v)."""
    return policy.lm_head(policy.model.collapse(read(policy, cache, rows, keep=1)))[:, 0]


def _note_prompts(
    seen: list[list[Tensor]], prompts: list[list[int]], group_size: int, routes: list[list[Tensor]]
) -> None:
    width = max(map(len, prompts))
    # A long reading takes several passes, each of some columns of all rows.
    read_all = [torch.cat([x.unflatten(0, (len(prompts), -1)) for x in own], dim=1) for own in seen]
    stacked = torch.stack(read_all, dim=2)  # (p, s, l, k)
    assert stacked.shape[1] == width
    for row, own in enumerate(routes):
        own.append(stacked[row // group_size, : len(prompts[row // group_size])])
    for router in seen:
        router.clear()


def _note_step(seen: list[list[Tensor]], seats: list[int], routes: list[list[Tensor]]) -> None:
    stacked = torch.stack([own[0] for own in seen], dim=1)  # (rows, l, k)
    for seat, row in enumerate(seats):
        routes[row].append(stacked[seat : seat + 1])
    for router in seen:
        router.clear()


def padded_rows(rollouts: Rollouts, rows: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """The ids of some rows, prompt and answer, and where the answers' tokens stand: (b, s), (b, s) bool."""
    texts = [rollouts.prompt(row) + rollouts.tokens[row] for row in rows]
    ids = pad(texts, device)
    place = torch.arange(ids.shape[1], device=device)
    begin = torch.tensor([len(rollouts.prompt(row)) for row in rows], device=device)[:, None]
    end = torch.tensor([len(text) for text in texts], device=device)[:, None]
    return ids, (place >= begin) & (place < end)
