"""What the tests run on several processes; every function returns plain numbers."""

from collections import Counter
from pathlib import Path

import torch
import torch.distributed as dist

from tests.training.small_run import make
from workbench.training.distributed import context
from workbench.training.distributed.context_loss import context_loss
from workbench.training.distributed.exchange import exchange, gather
from workbench.training.distributed.process_ranks import ProcessRanks
from workbench.training.distributed.sharding import shard, whole_weights
from workbench.training.loop import mean_loss, train


def rows_of(run):
    return [[row["step"], row["loss"], row["grad_norm"], row["largest_load"]] for row in run]


def cut_run(n_context=1, n_expert=1, steps=4, seed=1, stop=None, **options):
    """A small run on all processes: its rows, and the sum of each whole weight at the end."""
    ranks = ProcessRanks(n_context=n_context, n_expert=n_expert)
    model, loader, recipe = make(steps, seed=seed)
    shard(model, ranks)
    rows = []
    for row in train(model, loader, recipe, ranks=ranks, **options):
        rows += rows_of([row])
        if row["step"] == stop:
            break
    weights = {name: x.double().norm().item() for name, x in whole_weights(model).items()}
    held_out = mean_loss(model, [loader.peek(4)], ranks)
    return {"rows": rows, "weights": weights, "held_out": held_out}


def one_run(steps=4, **options):
    model, loader, recipe = make(steps)
    rows = rows_of(train(model, loader, recipe, **options))
    weights = {name: x.double().norm().item() for name, x in model.state_dict().items()}
    return {"rows": rows, "weights": weights, "held_out": mean_loss(model, [loader.peek(4)])}


def all_ways(ways, folder):
    """The same run cut in several ways; then stopped after a checkpoint and taken up again."""
    found = [cut_run(*way) for way in ways]
    cut_run(1, 2, steps=6, folder=Path(folder), checkpoint_every=2, stop=5)
    return found


def taken_up(n_context, n_expert, folder):
    return cut_run(n_context, n_expert, steps=6, seed=7, folder=Path(folder), checkpoint_every=100)


def trades():
    """exchange and gather, forward and backward, as lists."""
    rank, n, group = dist.get_rank(), dist.get_world_size(), dist.group.WORLD
    # Process r sends i + r rows to process i; each row says where it comes from and where it goes.
    send = [i + rank for i in range(n)]
    receive = [rank + i for i in range(n)]
    x = torch.tensor([[10.0 * rank + i] for i in range(n) for _ in range(send[i])], requires_grad=True)
    y = exchange(x, send, receive, group)
    (y * (rank + 1)).sum().backward()
    z = torch.tensor([1.0 + rank, 5.0], requires_grad=True)
    everyones = gather(z, group)
    (everyones * (rank + 1)).sum().backward()
    return [t.flatten().tolist() for t in (y, x.grad, everyones, z.grad)]


def packings(n_draws, row_tokens):
    """Loss and gradients of rows cut over all processes, beside `Transformer.loss`, for drawn packings.

    Returns the largest differences and how many windows were cut through.
    """
    group = dist.group.WORLD
    worst, n_cut = Counter(), 0
    for draw in range(n_draws):
        generator = torch.Generator().manual_seed(draw)
        model = make(steps=1, seed=draw)[0]
        with torch.no_grad():  # fresh streams are alike, and the mixing's gradients nothing but rounding
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=generator), alpha=0.05 if p.ndim > 1 else 0.5)
        ids = torch.randint(64, (2, row_tokens), generator=generator)
        is_start = torch.rand(ids.shape, generator=generator) < (0, 0.04, 0.3)[draw % 3]
        samples = is_start.cumsum(dim=1)
        labels = ids.masked_fill(torch.rand(ids.shape, generator=generator) < 0.2, -100)
        options = dict(labels=labels, sample_ids=samples, mtp_weight=0.3)
        whole = model.loss(ids, **options)
        whole.backward()
        expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        part = context_loss(model, group, ids, **options)
        part.backward()
        total = part.detach().clone()
        dist.all_reduce(total)
        worst["loss"] = max(worst["loss"], abs(total.item() - whole.item()))
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert found.keys() == expected.keys()
        size = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
        for name, gradient in found.items():
            dist.all_reduce(gradient)
            scale = expected[name].norm().clamp(min=0.01 * size)
            difference = (gradient - expected[name]).norm() / scale
            worst[name] = max(worst[name], difference.item())
        stretch = row_tokens // dist.get_world_size()
        index = torch.arange(row_tokens)
        start = torch.where(is_start, index, 0).cummax(dim=1).values
        n_cut += int(((index - start)[:, stretch:-1:stretch] % 8 != 0).sum())
    return {"worst": dict(worst), "cut": n_cut}


def traffic(row_tokens):
    """Numbers that one attention layer of each kind takes from other processes in a forward pass."""
    group, n = dist.group.WORLD, dist.get_world_size()
    taken, now = Counter(), []
    exchange_, gather_ = context.exchange, context.gather

    def counted_exchange(x, send, receive, own):
        taken[now[-1]] += sum(receive) * x.shape[1]
        return exchange_(x, send, receive, own)

    def counted_gather(x, own):
        taken[now[-1]] += (n - 1) * x.numel()
        return gather_(x, own)

    context.exchange, context.gather = counted_exchange, counted_gather
    try:
        model = make(steps=1)[0]
        for i, module in enumerate(model.model.layers):
            module.self_attn.register_forward_pre_hook(lambda m, inputs, i=i: now.append(i))
        context_loss(model, group, torch.zeros(2, row_tokens, dtype=torch.long))
    finally:
        context.exchange, context.gather = exchange_, gather_
    return [taken[i] for i in range(5)]
