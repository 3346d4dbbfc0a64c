"""A pipeline played by ticking a clock: slow, and with no queues or look-ahead to get wrong."""


def makespan(orders, seconds, parts, together=1.0):
    """Ticks until every rank has worked off its list.

    orders: for each rank a list of tuples of (kind, micro_batch, part, route); seconds(kind) a whole number.
    A pass may begin in the tick after its input was made.
    """
    waiting = [list(rank) for rank in orders]
    running = [None] * len(orders)  # (ticks left, work)
    finished, tick = set(), 0
    while any(waiting) or any(running):
        for rank, now in enumerate(running):
            if (
                now is None
                and waiting[rank]
                and all(_may_begin(w, finished, parts) for w in waiting[rank][0])
            ):
                work = waiting[rank].pop(0)
                ticks = sum(seconds(w[0]) for w in work) * (together if len(work) == 2 else 1)
                running[rank] = [round(ticks), work]
        tick += 1
        for rank, now in enumerate(running):
            if now is None:
                continue
            now[0] -= 1
            if now[0] == 0:
                finished.update((_half(w[0]), *w[1:]) for w in now[1])
                running[rank] = None
        assert tick < 10**6, "the schedule waits for itself"
    return tick


def _half(kind):
    return "backward" if kind == "input" else kind


def _may_begin(work, finished, parts):
    kind, micro_batch, part, route = work
    if kind == "forward":
        return part == 0 or ("forward", micro_batch, part - 1, route) in finished
    if kind == "weight":
        return ("backward", micro_batch, part, route) in finished
    behind = part + 1 == parts or ("backward", micro_batch, part + 1, route) in finished
    return behind and ("forward", micro_batch, part, route) in finished
