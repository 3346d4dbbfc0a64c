"""A core as a set of engines, event by event: slow, obvious, and nothing of the closed form.

Every engine does one thing at a time. Between two engines lie two buffers: one is taken when its producer
starts to fill it and given back when its consumer has finished with it.
"""

import heapq
import itertools
import math


def core_seconds(tiles, *, buffers=2, accumulators=2, pause=0.0):
    """When one core has stored its last tile.

    tiles: one dictionary a tile: "steps", a list of tuples of seconds (one number an engine, in the order of
    the chain), and "store", seconds. accumulators: tiles whose sums fit beside each other. pause: seconds
    between the last step of a tile and the first of the next (no engine runs ahead).
    """
    steps = [(t, s) for t, tile in enumerate(tiles) for s in range(len(tile["steps"]))]
    engines = len(tiles[0]["steps"][0])
    next_step = [0] * engines  # which step each engine does next
    finished = [0] * engines  # how many it has finished
    is_busy = [False] * engines
    tile_done, tile_done_at, stored = 0, {}, 0
    store_next, store_busy = 0, False
    events, order, now, last = [], itertools.count(), 0.0, 0.0

    def begin():
        nonlocal store_busy
        started = False
        for e in range(engines):
            i = next_step[e]
            if is_busy[e] or i == len(steps):
                continue
            tile, step = steps[i]
            has_input = e == 0 or finished[e - 1] > i
            # Buffers filled by e: begun and not yet finished by the next engine.
            is_free = e == engines - 1 or i - finished[e + 1] < buffers
            has_sums = e < engines - 1 or step > 0 or tile < stored + accumulators
            may_follow = (
                not pause or step > 0 or tile == 0 or tile_done_at.get(tile - 1, math.inf) + pause <= now
            )
            if has_input and is_free and has_sums and may_follow:
                is_busy[e], next_step[e], started = True, i + 1, True
                heapq.heappush(events, (now + tiles[tile]["steps"][step][e], next(order), e))
        if not store_busy and store_next < tile_done:
            store_busy, started = True, True
            heapq.heappush(events, (now + tiles[store_next]["store"], next(order), "store"))
        return started

    while True:
        while begin():
            pass
        if not events:
            break
        now, _, what = heapq.heappop(events)
        if what == "store":
            store_busy, stored, store_next, last = False, stored + 1, store_next + 1, now
        elif what != "wake":
            is_busy[what] = False
            finished[what] += 1
            tile, step = steps[finished[what] - 1]
            if what == engines - 1 and step == len(tiles[tile]["steps"]) - 1:
                tile_done += 1
                tile_done_at[tile] = now
                if pause:
                    heapq.heappush(events, (now + pause, next(order), "wake"))
    assert stored == len(tiles)
    return last


def gemm_seconds(
    m, n, k, *, tile, split, cores, core_flop, load, feed, a_bytes, w_bytes, o_bytes, step_channels,
    least_step=0.0, shared_columns=1, grain=16, accumulators=2, join=0.0,
):  # fmt: skip
    """The busiest core of a tiled product, its tiles dealt out in turn.

    core_flop, load, feed: rates of one core (feed None: no such engine); join: bytes a second of the whole
    chip for adding up the parts of a split k.
    """
    queues = [[] for _ in range(cores)]
    part = k / split
    count = 0
    for top in range(0, m, tile[0]):
        for left in range(0, n, tile[1]):
            for _ in range(split):
                rows = grain * math.ceil(min(tile[0], m - top) / grain)
                columns = grain * math.ceil(min(tile[1], n - left) / grain)
                steps = []
                at = 0
                while at < part:
                    width = min(step_channels, part - at)
                    moved = (rows * a_bytes + columns / shared_columns * w_bytes) * width
                    compute = max(2 * rows * columns * width / core_flop, least_step)
                    fed = (rows * a_bytes + columns * w_bytes) * width
                    engines = (moved / load, compute) if feed is None else (moved / load, fed / feed, compute)
                    steps.append(engines)
                    at += width
                stored = rows * columns * (4 if split > 1 else o_bytes) / load
                if accumulators == 1:
                    # The multiplier itself waits for the store.
                    steps[-1] = (*steps[-1][:-1], steps[-1][-1] + stored)
                queues[count % cores].append({"steps": steps, "store": stored})
                count += 1
    end = max(core_seconds(q, accumulators=max(accumulators, 2)) for q in queues if q)
    return end + (m * n * split * 4 / join if split > 1 else 0.0)
