"""How good a detector is: its ROC, what it costs the honest, and how much is gone before it speaks.

Intervals redraw campaigns and honest accounts; the accounts of one campaign behave alike, so they are not
independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from workbench.distillation.detectors import DETECTORS, fit_logistic, groups, logistic, scores, surprise
from workbench.distillation.gateway import Floats, Traffic, simulate
from workbench.reasoning.measures import Interval

COMBINATIONS = ("surprise", "learned", "linked", "either")


def roc(honest: Floats, attack: Floats) -> tuple[Floats, Floats]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1); equal scores fall together.

    Raises:
        ValueError: no honest or no attack score.
    """
    if not len(honest) or not len(attack):
        raise ValueError(
            f"roc: got {len(honest)} honest and {len(attack)} attack scores; needs one of each or more; draw "
            f"more traffic"
        )
    at = np.unique(np.concatenate([honest, attack]))[::-1]
    rates = [1 - np.searchsorted(np.sort(own), at, side="left") / len(own) for own in (honest, attack)]
    return np.concatenate([[0.0], rates[0]]), np.concatenate([[0.0], rates[1]])


def auroc(honest: Floats, attack: Floats) -> float:
    """The chance that an attack account scores above an honest one; ties count half."""
    own = np.sort(honest)
    below = np.searchsorted(own, attack, side="left") + np.searchsorted(own, attack, side="right")
    return float(below.mean() / (2 * len(own)))


@dataclass(frozen=True)
class Tuned:
    """What was set on one log: its honest scores, and the weights of the learned combination."""

    log: Traffic
    honest: Floats  # (a, f)
    weights: Floats
    days: float

    def combine(self, traffic: Traffic, found: Floats, how: str) -> Floats:
        """One number an account, from its scores and, if linked, from those of the accounts linked to it.

        a name of DETECTORS   that score alone
        surprise              how rare its scores are among the honest; no attack was seen for it
        learned               log odds from the attacks of the tuning log
        linked                surprise, plus what the accounts linked to it exceed the honest 95 % by
        either                how rare the surprise or the linked one is, whichever is rarer

        Raises:
            ValueError: another name.
        """
        if how in DETECTORS:
            return found[:, list(DETECTORS).index(how)]
        if how not in COMBINATIONS:
            raise ValueError(
                f"combine: got {how!r}; needs one of {[*DETECTORS, *COMBINATIONS]}; choose among those"
            )
        if how == "learned":
            return logistic(self.weights, found)
        own = surprise(self.honest, found)
        if how == "surprise":
            return own
        excess = np.maximum(own - self._usual, 0)
        group = groups(traffic)
        linked = own + np.bincount(group, excess)[group] - excess
        if how == "linked":
            return linked
        columns = zip(self._honest_both.T, (own, linked), strict=True)
        return np.max([surprise(honest[:, None], mine[:, None]) for honest, mine in columns], axis=0)

    @cached_property
    def _usual(self) -> float:
        """The surprise that one honest account in twenty exceeds."""
        return float(np.quantile(surprise(self.honest, self.honest), 0.95))

    @cached_property
    def _honest_both(self) -> Floats:
        """Surprise and linked surprise of the honest accounts of the tuning log: (a, 2)."""
        found = scores(self.log, self.days)
        both = [self.combine(self.log, found, how)[~self.log.is_attack] for how in ("surprise", "linked")]
        return np.column_stack(both)

    def threshold(self, how: str, false_positives: float) -> float:
        """What this share of the honest accounts of the tuning log exceeds."""
        value = self.combine(self.log, scores(self.log, self.days), how)[~self.log.is_attack]
        return float(np.quantile(value, 1 - false_positives, method="higher"))


def tune(traffic: Traffic, days: float) -> Tuned:
    """Set everything on one log, whose styles of attack are the known ones."""
    found, is_attack = scores(traffic, days), traffic.is_attack
    return Tuned(traffic, found[~is_attack], fit_logistic(found, is_attack), days)


def auroc_interval(
    value: Floats, traffic: Traffic, style: str, *, draws: int = 300, seed: int = 0
) -> Interval:
    """AUROC of one style against all honest accounts, 95 %, redrawing campaigns and honest accounts."""
    rng = np.random.default_rng(seed)
    honest = value[~traffic.is_attack]
    is_style = np.array(traffic.kind) == style
    campaigns = np.unique(traffic.campaign[is_style])
    own = [value[traffic.campaign == campaign] for campaign in campaigns]
    found = [
        auroc(
            honest[rng.integers(len(honest), size=len(honest))],
            np.concatenate([own[i] for i in rng.integers(len(own), size=len(own))]),
        )
        for _ in range(draws)
    ]
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(auroc(honest, value[is_style]), float(low), float(high))


def wilson(hits: int, tries: int) -> Interval:
    """A share and its 95 % interval, right for few tries and shares near 0 or 1."""
    z = 1.959964
    share, wide = hits / tries, 1 + z * z / tries
    middle = (share + z * z / (2 * tries)) / wide
    half = z * np.sqrt(share * (1 - share) / tries + z * z / (4 * tries * tries)) / wide
    return Interval(share, float(max(middle - half, 0.0)), float(min(middle + half, 1.0)))


def detection_delay(traffic: Traffic, tuned: Tuned, how: str, threshold: float) -> list[dict[str, float]]:
    """For every campaign: the first day after which a tenth of its accounts stand above the threshold.

    A row has campaign, day (inf if never within the log), and leaked: the share of its harvest until then.
    Each day is judged by the whole log until then.
    """
    caught: dict[int, int] = {}
    campaigns = np.unique(traffic.campaign[traffic.is_attack])
    last = int(tuned.days)
    for day in range(1, last + 1):
        early = traffic.until(day)
        value = tuned.combine(early, scores(early, day), how)
        for campaign in campaigns:
            share = (value[traffic.campaign == campaign] > threshold).mean()
            if campaign not in caught and share >= 0.1:
                caught[int(campaign)] = day
    rows = []
    taken_from = traffic.campaign[traffic.account]
    for campaign in campaigns:
        harvest = traffic.time_s[(taken_from == campaign) & traffic.is_harvest]
        seen = float(caught[int(campaign)]) if int(campaign) in caught else np.inf
        leaked = (harvest < min(seen, last) * 86_400).mean() if len(harvest) else 0.0
        rows.append({"campaign": int(campaign), "day": seen, "leaked": float(leaked)})
    return rows


def honest_cost(
    value: Floats, traffic: Traffic, threshold: float, *, attackers_in: float = 1000
) -> dict[str, float]:
    """What a threshold does to the honest: shares of accounts and queries stopped, and the precision.

    Args:
        attackers_in: one account of so many is an attacker's. Precision is the share of attackers among those
            stopped, were it so; the log itself holds far more of them.
    """
    stopped, is_attack = value > threshold, traffic.is_attack
    queries = np.bincount(traffic.account, minlength=traffic.n_accounts)
    false, true = stopped[~is_attack].mean(), stopped[is_attack].mean()
    rate = 1 / attackers_in
    alarms = rate * true + (1 - rate) * false
    row = {
        "accounts": float(false),
        "queries": float(queries[stopped & ~is_attack].sum() / queries[~is_attack].sum()),
        "caught": float(true),
        "precision": float(rate * true / alarms) if alarms else float("nan"),
    }
    for kind in dict.fromkeys(np.array(traffic.kind)[~is_attack].tolist()):
        row[f"accounts: {kind}"] = float(stopped[np.array(traffic.kind) == kind].mean())
    return row


def study(
    known: Sequence, held_out: Sequence, *, honest: int, campaigns: int, days: int, seed: int
) -> tuple[Tuned, Traffic, Floats]:
    """Tune on known styles; draw another log, with more styles, to judge on: -> tuned, log, its scores."""
    tuned = tune(simulate(honest, [(kind, campaigns) for kind in known], days=days, seed=seed), days)
    log = simulate(honest, [(kind, campaigns) for kind in (*known, *held_out)], days=days, seed=seed + 10_000)
    return tuned, log, scores(log, days)
