"""Who extracts? A score for every account from what a gateway sees; larger is more suspicious.

    volume     log(1 + queries a day)
    hours      evenness of the hours of the day: entropy over log 24
    coverage   different topics expected among 16 of its queries
    template   how many other accounts use its templates, in the mean over its queries, as a logarithm
    reasoning  the share of queries that ask to see the reasoning
    linkage    log of the daily queries of all accounts that share a payment, or a network and a template

An account with few queries says little: hours, coverage, template and reasoning are drawn towards the mean of
all accounts with the weight of 16 queries, and need no labels for it.

Axes: a accounts, n queries, f scores.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from workbench.distillation.gateway import TOPICS, Floats, Ints, Traffic

DRAWN = 16  # queries among which topics are counted, and the weight of the mean


def volume(traffic: Traffic, days: float) -> Floats:
    return np.log1p(_queries(traffic) / days)


def hours(traffic: Traffic, days: float) -> Floats:
    """Evenness of 24 hours; few queries look uneven, so the entropy is that expected of 16 of them."""
    hour = (traffic.time_s / 3600).astype(np.int64) % 24
    return _shrunk(_different(traffic, hour, 24), _queries(traffic))


def coverage(traffic: Traffic, days: float) -> Floats:
    return _shrunk(_different(traffic, traffic.topic, TOPICS), _queries(traffic))


def template(traffic: Traffic, days: float) -> Floats:
    pairs, _ = _pairs(traffic.template, traffic.account)
    users = np.bincount(pairs, minlength=int(traffic.template.max(initial=0)) + 1)
    return _shrunk(_mean(traffic, np.log(users[traffic.template])), _queries(traffic))


def reasoning(traffic: Traffic, days: float) -> Floats:
    return _shrunk(_mean(traffic, traffic.asks_reasoning.astype(float)), _queries(traffic))


def linkage(traffic: Traffic, days: float) -> Floats:
    group = groups(traffic)
    pooled = np.bincount(group, _queries(traffic))
    members = np.bincount(group)
    # One account alone is no group: its volume has its own detector.
    return np.where(members[group] > 1, np.log1p(pooled[group] / days), 0.0)


DETECTORS: dict[str, Callable[[Traffic, float], Floats]] = {
    "volume": volume,
    "hours": hours,
    "coverage": coverage,
    "template": template,
    "reasoning": reasoning,
    "linkage": linkage,
}


def scores(traffic: Traffic, days: float) -> Floats:
    """All of them: (a, f)."""
    return np.stack([detector(traffic, days) for detector in DETECTORS.values()], axis=1)


def groups(traffic: Traffic) -> Ints:
    """A number for each account, the same for those linked by a payment, or by a network and a template."""
    parent = list(range(traffic.n_accounts))

    def root(a: int) -> int:
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        return a

    def join(keys: NDArray, members: Ints) -> None:
        order = np.lexsort((members, keys))
        same = keys[order][1:] == keys[order][:-1]
        for a, b in zip(members[order][:-1][same], members[order][1:][same], strict=True):
            parent[root(int(a))] = root(int(b))

    join(traffic.payment, np.arange(traffic.n_accounts))
    # Most prompts are unlike any other: they link nobody, and are left out for speed.
    users = np.bincount(traffic.template)[traffic.template]
    template, account = _pairs(traffic.template[users > 1], traffic.account[users > 1])
    join(template * (int(traffic.network.max()) + 1) + traffic.network[account], account)
    return np.unique([root(a) for a in range(traffic.n_accounts)], return_inverse=True)[1]


def _pairs(first: Ints, second: Ints) -> tuple[Ints, Ints]:
    """The different pairs."""
    wide = int(second.max(initial=0)) + 1
    both = np.unique(first * wide + second)
    return both // wide, both % wide


def _queries(traffic: Traffic) -> Floats:
    return np.bincount(traffic.account, minlength=traffic.n_accounts).astype(float)


def _mean(traffic: Traffic, value: Floats) -> Floats:
    total = np.bincount(traffic.account, value, minlength=traffic.n_accounts)
    return total / np.maximum(_queries(traffic), 1)


def _different(traffic: Traffic, label: Ints, kinds: int) -> Floats:
    """How many labels differ among 16 queries drawn without replacement (all, of those with fewer)."""
    flat = np.bincount(traffic.account * kinds + label, minlength=traffic.n_accounts * kinds)
    counts = flat.reshape(-1, kinds).astype(float)
    total = counts.sum(axis=1, keepdims=True)
    drawn = np.minimum(total, DRAWN)
    # The chance that a label is not among them: C(N - n, k) / C(N, k).
    missed = np.exp(_log_choose(total - counts, drawn) - _log_choose(total, drawn))
    return np.where(counts > 0, 1 - np.where(total - counts < drawn, 0.0, missed), 0.0).sum(axis=1)


_LOG_FACTORIAL = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 200_001)))])


def _log_choose(n: Floats, k: Floats) -> Floats:
    n, k = np.broadcast_arrays(n, k)
    whole, part = n.astype(np.int64), k.astype(np.int64)
    rest = np.maximum(whole - part, 0)
    if whole.max(initial=0) >= len(_LOG_FACTORIAL):
        raise ValueError(
            f"detectors: got an account with {whole.max()} queries; needs fewer than {len(_LOG_FACTORIAL)}; "
            f"cut the log by time"
        )
    return _LOG_FACTORIAL[whole] - _LOG_FACTORIAL[part] - _LOG_FACTORIAL[rest]


def _shrunk(value: Floats, queries: Floats) -> Floats:
    mean = float(value[queries > 0].mean()) if (queries > 0).any() else 0.0
    return (value * queries + mean * DRAWN) / (queries + DRAWN)


def surprise(honest: Floats, found: Floats) -> Floats:
    """Scores as -log of the share of honest accounts that score as high, added up: (a, f) -> (a,).

    It needs no attack to be tuned. Scores are treated as if they were independent; the threshold is set on
    honest traffic, so this costs power and not truth.
    """
    total = np.zeros(len(found))
    for column in range(found.shape[1]):
        own = np.sort(honest[:, column])
        above = len(own) - np.searchsorted(own, found[:, column], side="left")
        total -= np.log((above + 1) / (len(own) + 1))
    return total


def fit_logistic(found: Floats, is_attack: NDArray[np.bool_], penalty: float = 1e-2) -> Floats:
    """Weights of a ridge logistic regression on standardised scores, classes weighted alike.

    Shapes: (a, f), (a,) -> (3 f + 1,): means, scales and weights of the scores, and an intercept.
    """
    mean, scale = found.mean(axis=0), found.std(axis=0) + 1e-12
    x = np.column_stack([(found - mean) / scale, np.ones(len(found))])
    balance = np.where(is_attack, 0.5 / is_attack.mean(), 0.5 / (~is_attack).mean()) / len(found)
    weight = np.zeros(x.shape[1])
    ridge = penalty * np.eye(len(weight))
    for _ in range(30):  # Newton's method; the penalty keeps separable classes finite
        p = 1 / (1 + np.exp(-x @ weight))
        gradient = x.T @ (balance * (p - is_attack)) + penalty * weight
        hessian = (x * (balance * p * (1 - p))[:, None]).T @ x + ridge
        step = np.linalg.solve(hessian, gradient)
        weight -= step
        if math.sqrt(float(step @ step)) < 1e-9:
            break
    return np.concatenate([mean, scale, weight])


def logistic(fitted: Floats, found: Floats) -> Floats:
    """The log odds of every account: (a, f) -> (a,)."""
    f = found.shape[1]
    mean, scale, weight = fitted[:f], fitted[f : 2 * f], fitted[2 * f :]
    return ((found - mean) / scale) @ weight[:-1] + weight[-1]
