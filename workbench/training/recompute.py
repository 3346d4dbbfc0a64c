"""Checkpointing single tensors: the forward pass is recorded, any tensor may be dropped and computed again.

Module-wise checkpointing drops all that a module made and runs all of it again. Here every operation of the
forward pass is recorded once. A storage can be dropped alone; where the backward pass wants it, the least
part of the record that leads from kept tensors to it runs again. Views of a storage count once.

    tape = record(lambda: loss())                 what was made, what backward wants, what it costs
    loss, kept = run_with(lambda: loss(), tape, dropped)      the same gradients, fewer bytes

Report: section 3.5.4.
Departs: the report traces the graph at compile time; here it is recorded while it runs, so that every run
must take the same path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.flop_counter import flop_registry


class Ref(NamedTuple):
    """A tensor of the record: which storage, and how it is looked at."""

    storage: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    is_conj: bool  # torch conjugates and negates lazily: a bit of the view, nothing in the storage
    is_neg: bool


@dataclass
class Step:
    """One operation that made storages: what it takes, and which storages it gives."""

    function: Any
    arguments: list[Any]
    layout: Any
    made: dict[int, int]  # storage -> place among the outputs
    flop: float
    moved_bytes: float
    scope: str


@dataclass
class Tape:
    """A recorded forward pass. makers: step of each storage; wanted: storages that backward reads;
    pinned: storages written after they were made, which cannot be made again."""

    steps: list[Step] = field(default_factory=list)
    makers: dict[int, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    wanted: set[int] = field(default_factory=set)
    pinned: set[int] = field(default_factory=set)

    def droppable(self) -> list[int]:
        """Storages that backward reads and that may be computed again."""
        return sorted(self.wanted - self.pinned)

    def again(self, dropped: Iterable[int]) -> tuple[list[int], set[int]]:
        """Steps to run again for these storages, in order, and the storages they start from."""
        dropped = set(dropped)
        held = (self.wanted | self.pinned) - dropped
        steps, sources, open_ = set[int](), set[int](), sorted(dropped)
        while open_:
            storage = open_.pop()
            if storage in held:
                sources.add(storage)
            elif self.makers[storage] not in steps:
                steps.add(self.makers[storage])
                open_ += [a.storage for a in self.steps[self.makers[storage]].arguments if type(a) is Ref]
        return sorted(steps), sources

    def kept_bytes(self, dropped: Iterable[int]) -> int:
        """Bytes between forward and backward, parameters and inputs apart."""
        dropped = set(dropped)
        return sum(self.sizes[s] for s in (self.wanted - dropped) | self.again(dropped)[1])

    def seconds(self, dropped: Iterable[int], flop_per_s: float, byte_per_s: float) -> float:
        """Time to compute dropped storages again, each step the longer of arithmetic and traffic."""
        again = (self.steps[i] for i in self.again(dropped)[0])
        return sum(max(step.flop / flop_per_s, step.moved_bytes / byte_per_s) for step in again)


def record(forward: Callable[[], Tensor], modules: torch.nn.Module | None = None) -> Tape:
    """Run a forward pass once and record it. modules: whose layers' names go to the steps' scope."""
    recorder = _Recorder(frozenset())
    hooks = _scopes(modules, recorder) if modules is not None else []
    try:
        recorder.run(forward)
    finally:
        for hook in hooks:
            hook.remove()
    return recorder.tape


def run_with(forward: Callable[[], Tensor], tape: Tape, dropped: Iterable[int]) -> tuple[Tensor, int]:
    """Run a recorded forward pass without keeping some storages; the result's backward computes them again.

    -> the result, and the bytes really held for backward.

    Raises:
        ValueError: a storage that backward does not read or that cannot be made again, or a pass that took
            another path than the recorded one.
    """
    dropped = frozenset(dropped)
    if strange := dropped - set(tape.droppable()):
        raise ValueError(
            f"run_with: storages {sorted(strange)} cannot be dropped; choose among tape.droppable(), "
            f"{len(tape.droppable())} of them"
        )
    recorder = _Recorder(dropped, tape.again(dropped)[1])
    result = recorder.run(forward)
    if recorder.tape.sizes != tape.sizes:
        raise ValueError(
            f"run_with: {len(recorder.tape.sizes)} storages were made, {len(tape.sizes)} recorded; every run "
            f"must take the same path; run once before you record, and keep the input's size"
        )
    return result, recorder.held_bytes()


def cheapest_first(tape: Tape, flop_per_s: float, byte_per_s: float) -> list[tuple[int, ...]]:
    """Ever larger sets to drop, each time the storage that frees the most bytes for a second more.

    A storage's gain is looked up anew only when it leads, so that the order is greedy but not exactly so. The
    first set is empty, the last drops whatever frees a byte.
    """
    dropped: tuple[int, ...] = ()
    found, left = [dropped], tape.droppable()

    def gain(storage: int) -> float:
        trial = (*dropped, storage)
        freed = tape.kept_bytes(dropped) - tape.kept_bytes(trial)
        cost = tape.seconds(trial, flop_per_s, byte_per_s) - tape.seconds(dropped, flop_per_s, byte_per_s)
        return freed / max(cost, 1e-12)

    while True:
        before, queue = len(dropped), [(-gain(storage), storage) for storage in left]
        heapify(queue)
        while queue:
            _, storage = heappop(queue)
            now = gain(storage)
            if now <= 0:
                continue
            if queue and now < -queue[0][0]:
                heappush(queue, (-now, storage))
                continue
            dropped = (*dropped, storage)
            found.append(dropped)
        if len(dropped) == before:
            return found
        # What kept others alive may be gone by now: ask the rest once more.
        left = [storage for storage in left if storage not in dropped]


def of_scopes(tape: Tape, scopes: Iterable[str]) -> tuple[int, ...]:
    """Storages that whole modules made, their results apart: what module-wise checkpointing drops.

    A result is what a step outside the module reads.
    """
    scopes = tuple(scopes)

    def inside(step: Step, scope: str) -> bool:
        return step.scope == scope or step.scope.startswith(scope + ".")

    dropped: set[int] = set()
    for scope in scopes:
        made = {s for step in tape.steps if inside(step, scope) for s in step.made}
        read = {
            a.storage
            for step in tape.steps
            if not inside(step, scope)
            for a in step.arguments
            if type(a) is Ref
        }
        dropped |= made - read
    return tuple(sorted(dropped & set(tape.droppable())))


class _Recorder(TorchDispatchMode):
    """Records steps below autograd, and stands in for dropped tensors above it."""

    def __init__(self, dropped: frozenset[int], sources: Iterable[int] = ()):
        super().__init__()
        self.tape, self.dropped, self.sources = Tape(), dropped, set(sources)
        self.scope = ""
        self._alive: dict[int, tuple[int, StorageWeakRef]] = {}  # address -> storage: what lay there last
        self._held: dict[int, Tensor] = {}  # roots that are kept for recomputation
        self._packed: dict[int, int] = {}  # storages that autograd holds, and their bytes
        self._recording = True

    def run(self, forward: Callable[[], Tensor]) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack), self:
            result = forward()
        self._recording = False
        return result

    def held_bytes(self) -> int:
        """Storages that autograd or a recomputation holds, each once."""
        roots = {s: self.tape.sizes[s] for s in self._held}
        return sum({**roots, **self._packed}.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        flat, layout = tree_flatten((args, kwargs))
        arguments = [self._ref(a) if isinstance(a, Tensor) else a for a in flat]
        addresses = {_address(a) for a in flat if isinstance(a, Tensor)}
        out = func(*args, **kwargs)
        outputs = list(tree_flatten(out)[0])
        step = Step(func, arguments, layout, {}, *_cost(func, flat, args, kwargs, outputs, out), self.scope)
        for place, tensor in enumerate(outputs):
            if not isinstance(tensor, Tensor) or not _address(tensor):
                continue
            if _address(tensor) not in addresses:
                storage = len(self.tape.sizes)
                self.tape.sizes[storage] = tensor.untyped_storage().nbytes()
                self.tape.makers[storage] = len(self.tape.steps)
                self._alive[_address(tensor)] = storage, StorageWeakRef(tensor.untyped_storage())
                step.made[storage] = place
                if storage in self.sources:
                    self._held[storage] = tensor.detach()
        if func._schema.is_mutable:
            written = [
                a.storage
                for a, s in zip(arguments, flat, strict=True)
                if type(a) is Ref and isinstance(s, Tensor)
            ]
            self.tape.pinned.update(written[:1])
        self.tape.steps.append(step)
        return out

    def _ref(self, tensor: Tensor) -> Any:
        """A recorded tensor by its storage; parameters and inputs as they are."""
        storage, lives = self._alive.get(_address(tensor), (0, None)) if _address(tensor) else (0, None)
        if lives is None or lives.expired():  # an address serves again once its storage is gone
            return tensor.detach()
        place = (tuple(tensor.size()), tuple(tensor.stride()), int(tensor.storage_offset()))
        return Ref(storage, *place, tensor.dtype, tensor.is_conj(), tensor.is_neg())

    def _pack(self, tensor: Tensor) -> Any:
        found = self._ref(tensor) if self._recording and tensor.layout == torch.strided else tensor
        if type(found) is not Ref:
            return tensor
        self.tape.wanted.add(found.storage)
        if found.storage in self.dropped:
            return found
        self._packed[found.storage] = self.tape.sizes[found.storage]
        return tensor

    def _unpack(self, packed: Any) -> Tensor:
        if type(packed) is not Ref:
            return packed
        with torch.no_grad():
            return self._look(packed)

    def _look(self, ref: Ref) -> Tensor:
        # Not as_strided: a complex number and its two parts share a storage under two dtypes.
        bytes_ = self._storage(ref.storage).untyped_storage()
        seen = torch.empty(0, dtype=ref.dtype).set_(bytes_, ref.offset, ref.size, ref.stride)
        seen = seen.conj() if ref.is_conj else seen
        return torch._neg_view(seen) if ref.is_neg else seen

    def _storage(self, storage: int) -> Tensor:
        """A storage's first tensor: held, or made again by the step that made it."""
        if storage not in self._held:
            step = self.tape.steps[self.tape.makers[storage]]
            flat = [self._look(a) if type(a) is Ref else a for a in step.arguments]
            args, kwargs = tree_unflatten(flat, step.layout)
            outputs = tree_flatten(step.function(*args, **kwargs))[0]
            # What else the step gives may be wanted too: keep it for the rest of the backward pass.
            self._held.update({s: outputs[place] for s, place in step.made.items()})
        return self._held[storage]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


def _cost(
    func: Any, flat: list[Any], args: Any, kwargs: Any, outputs: list[Any], out: Any
) -> tuple[float, float]:
    """FLOPs of products as torch counts them, and bytes read and written."""
    count = flop_registry.get(getattr(func, "_overloadpacket", func))
    flop = float(count(*args, **kwargs, out_val=out)) if count else 0.0
    tensors = [t for t in (*flat, *outputs) if isinstance(t, Tensor)]
    return flop, float(sum(t.numel() * t.element_size() for t in tensors))


def _scopes(model: torch.nn.Module, recorder: _Recorder) -> list[Any]:
    """Hooks that tell the recorder in which module it is."""
    stack: list[str] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            stack.append(name)
            recorder.scope = name

        return hook

    def leave(*_: Any) -> None:
        stack.pop()
        recorder.scope = stack[-1] if stack else ""

    hooks: list[Any] = []
    for name, module in model.named_modules():
        hooks += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    return hooks
