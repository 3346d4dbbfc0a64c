"""Traffic of an interface, all of it made up: honest users, and clients that extract a model.

A query is an account, a time, a topic, the template of its prompt, and whether it asks to see the reasoning.
An account has a network and a means of payment, which others may share. No real log was seen; the kinds
below follow public descriptions of such campaigns (accounts in pools, prompt templates, coverage, elicited
chains of thought, traffic hidden among that of real users), and every rate is an assumption. So what follows
ranks detectors in this world; it does not say how often they are right in another.

Axes: a accounts, n queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

TOPICS, PUBLIC_TEMPLATES, DAY_S = 64, 300, 86_400.0
NO_CAMPAIGN = -1
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """How the accounts of one kind behave. Numbers of accounts hold for a campaign; honest kinds stand alone.

    Args:
        queries: a day and account, in the median; accounts differ by a lognormal factor with sigma `spread`.
        topics: how many topics an account's interest takes in, about; TOPICS is all alike.
        template: the share of queries from a template of the account's own (of the campaign, if it is one);
            public_template that from templates which anybody may find, few of them very popular. Others are
            unlike any other.
        paraphrases: how many templates the campaign turns its own into.
        reasoning: the share that asks to see the reasoning.
        is_machine: works at all hours; people sleep.
        network: how many accounts share a network, in the mean; payment likewise.
        cover: the share of queries that are a real user's (a reseller's customers).
        accounts: of a campaign.
    """

    name: str
    is_attack: bool
    queries: float
    spread: float
    topics: float
    template: float
    public_template: float
    reasoning: float
    is_machine: bool
    network: float = 1.3
    payment: float = 1.0
    paraphrases: int = 1
    cover: float = 0.0
    accounts: int = 1


HONEST = (
    Kind("chat", False, 6, 0.8, 5, 0.0, 0.3, 0.15, False),
    Kind("office", False, 10, 0.7, 4, 0.1, 0.4, 0.15, False, network=25, payment=25),
    Kind("developer", False, 60, 1.2, 3, 0.8, 0.1, 0.2, True),
    Kind("evaluator", False, 80, 1.0, TOPICS, 0.9, 0.3, 0.6, True, network=3),
)
HONEST_SHARES = (0.72, 0.2, 0.06, 0.02)

KNOWN = (
    Kind("one account", True, 1500, 0.3, TOPICS, 0.9, 0.0, 0.7, True),
    Kind("pool", True, 40, 0.5, TOPICS, 0.8, 0.0, 0.5, True, network=10, payment=8, accounts=40),
    Kind("reasoning harvest", True, 120, 0.5, 8, 0.9, 0.0, 1.0, True, network=4, payment=4, accounts=12),
)
"""Attack styles that detectors are tuned on."""

HELD_OUT = (
    Kind("among customers", True, 30, 0.6, TOPICS, 0.6, 0.1, 0.5, False, network=6, payment=3, cover=0.7,
         accounts=60),
    Kind("paraphrased", True, 40, 0.5, 24, 0.8, 0.1, 0.5, True, network=8, payment=6, paraphrases=40,
         accounts=40),
    Kind("slow and apart", True, 8, 0.5, 16, 0.5, 0.2, 0.4, False, accounts=150),
)  # fmt: skip
"""Styles that no detector was tuned on."""


@dataclass(frozen=True)
class Traffic:
    """A log. Queries are in no order; accounts are numbered from 0; the honest have campaign NO_CAMPAIGN."""

    account: Ints
    time_s: Floats
    topic: Ints
    template: Ints
    asks_reasoning: NDArray[np.bool_]
    is_harvest: NDArray[np.bool_]  # taken for the student's training; the gateway cannot see it
    network: Ints  # of each account, as the next three
    payment: Ints
    campaign: Ints
    kind: tuple[str, ...]

    @property
    def n_accounts(self) -> int:
        return len(self.kind)

    @property
    def is_attack(self) -> NDArray[np.bool_]:
        return self.campaign != NO_CAMPAIGN

    def until(self, days: float) -> "Traffic":
        """The log of the first days; accounts without a query yet stay."""
        early = self.time_s < days * DAY_S
        fields = ("account", "time_s", "topic", "template", "asks_reasoning", "is_harvest")
        return replace(self, **{name: getattr(self, name)[early] for name in fields})


def simulate(honest: int, campaigns: Sequence[tuple[Kind, int]], *, days: int = 14, seed: int = 0) -> Traffic:
    """A log of honest accounts and of campaigns: each pair is a style and how many campaigns follow it.

    Raises:
        ValueError: no honest account, or no day.
    """
    if honest < 1 or days < 1:
        raise ValueError(
            f"simulate: got honest={honest}, days={days}; needs 1 or more of both; detectors are set by "
            f"honest traffic"
        )
    rng = np.random.default_rng(seed)
    parts: list[dict[str, NDArray]] = []
    owners: list[tuple[int, int, int, str]] = []
    fresh = _Names(PUBLIC_TEMPLATES)
    counts = rng.multinomial(honest, HONEST_SHARES)
    for kind, count in zip(HONEST, counts, strict=True):
        _accounts(kind, int(count), NO_CAMPAIGN, days, rng, fresh, parts, owners)
    number = 0
    for kind, count in campaigns:
        for _ in range(count):
            _accounts(kind, kind.accounts, number, days, rng, fresh, parts, owners)
            number += 1
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    network, payment, campaign, names = zip(*owners, strict=True)
    return Traffic(
        **joined,
        network=np.array(network),
        payment=np.array(payment),
        campaign=np.array(campaign),
        kind=tuple(names),
    )


class _Names:
    """Numbers that were not given before."""

    def __init__(self, first: int):
        self.next = first

    def take(self, count: int) -> Ints:
        self.next += count
        return np.arange(self.next - count, self.next)


def _accounts(
    kind: Kind,
    count: int,
    campaign: int,
    days: int,
    rng: np.random.Generator,
    fresh: _Names,
    parts: list[dict[str, NDArray]],
    owners: list[tuple[int, int, int, str]],
) -> None:
    networks = _shared(count, kind.network, rng, fresh)
    # An office sits and pays together; a campaign spreads its accounts over both.
    together = not kind.is_attack and kind.payment > 1
    payments = networks if together else _shared(count, kind.payment, rng, fresh)
    own_templates = fresh.take(kind.paraphrases)
    shared_interest = rng.dirichlet(np.full(TOPICS, kind.topics / TOPICS))
    customer = HONEST[0]
    for place in range(count):
        n = rng.poisson(kind.queries * rng.lognormal(0, kind.spread) * days)
        is_cover = rng.random(n) < kind.cover
        if not kind.is_attack:
            # Half of the honest who have a template of their own took it from a library.
            own_templates = fresh.take(1) if rng.random() < 0.5 else _public(1, rng)
            shared_interest = rng.dirichlet(np.full(TOPICS, kind.topics / TOPICS))
        interest = np.full(TOPICS, 1 / TOPICS) if kind.topics >= TOPICS else shared_interest
        theirs = rng.dirichlet(np.full(TOPICS, customer.topics / TOPICS))
        topic = np.where(is_cover, rng.choice(TOPICS, n, p=theirs), rng.choice(TOPICS, n, p=interest))
        template = _templates(n, is_cover, kind, customer, own_templates, rng, fresh)
        asks = rng.random(n) < np.where(is_cover, customer.reasoning, kind.reasoning)
        parts.append(
            {
                "account": np.full(n, len(owners)),
                "time_s": (rng.integers(0, days, n) + _hours(n, is_cover | (not kind.is_machine), rng))
                * DAY_S,
                "topic": topic,
                "template": template,
                "asks_reasoning": asks,
                "is_harvest": ~is_cover & kind.is_attack,
            }
        )
        owners.append((int(networks[place]), int(payments[place]), campaign, kind.name))


def _shared(count: int, mean: float, rng: np.random.Generator, fresh: _Names) -> Ints:
    """A number for each account; about `mean` accounts share one."""
    pool = fresh.take(max(round(count / mean), 1))
    return pool if len(pool) == count else rng.choice(pool, count)


def _templates(
    n: int,
    is_cover: NDArray[np.bool_],
    kind: Kind,
    customer: Kind,
    own: Ints,
    rng: np.random.Generator,
    fresh: _Names,
) -> Ints:
    draw = rng.random(n)
    from_own = ~is_cover & (draw < kind.template)
    public = np.where(is_cover, customer.public_template, kind.public_template)
    from_public = ~from_own & (rng.random(n) < public)
    template = fresh.take(n)
    template = np.where(from_own, rng.choice(own, n), template)
    return np.where(from_public, _public(n, rng), template)


def _public(n: int, rng: np.random.Generator) -> Ints:
    """Templates by popularity: the share of the r-th falls as 1 / r."""
    share = 1 / np.arange(1, PUBLIC_TEMPLATES + 1)
    return rng.choice(PUBLIC_TEMPLATES, n, p=share / share.sum())


def _hours(n: int, is_human: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """The part of the day that has passed: people around three in the afternoon, machines at any time."""
    human = np.clip(rng.normal(15 / 24, 3.5 / 24, n), 0, 1 - 1e-9)
    return np.where(is_human, human, rng.random(n))
