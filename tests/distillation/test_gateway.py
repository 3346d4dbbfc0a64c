"""Made-up traffic and detectors: against loops, scipy, and logs small enough to count by hand."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as oracle

from workbench.distillation import detection, detectors
from workbench.distillation.gateway import DAY_S, HELD_OUT, HONEST, KNOWN, NO_CAMPAIGN, Traffic, simulate

STYLES = {kind.name: kind for kind in (*KNOWN, *HELD_OUT)}


@pytest.fixture(scope="module")
def log() -> Traffic:
    return simulate(120, [(kind, 1) for kind in (*KNOWN, *HELD_OUT)], days=4, seed=1)


def by_hand(rows, network=None, payment=None, campaign=None) -> Traffic:
    """A log of (account, day, topic, template, asks)."""
    columns = list(zip(*rows, strict=True))
    n = max(columns[0]) + 1
    campaign = np.array(campaign or [NO_CAMPAIGN] * n)
    return Traffic(
        np.array(columns[0]), np.array(columns[1]) * DAY_S, np.array(columns[2]), np.array(columns[3]),
        np.array(columns[4], dtype=bool), campaign[np.array(columns[0])] >= 0,
        np.array(network or range(n)), np.array(payment or range(n)), campaign, ("chat",) * n,
    )  # fmt: skip


def test_a_log_follows_from_its_seed_and_holds_what_was_asked(log):
    again = simulate(120, [(kind, 1) for kind in (*KNOWN, *HELD_OUT)], days=4, seed=1)
    assert np.array_equal(log.time_s, again.time_s) and np.array_equal(log.topic, again.topic)
    other = simulate(120, [(kind, 1) for kind in (*KNOWN, *HELD_OUT)], days=4, seed=2)
    assert not np.array_equal(log.network, other.network)
    assert (~log.is_attack).sum() == 120
    for number, kind in enumerate((*KNOWN, *HELD_OUT)):
        assert (log.campaign == number).sum() == kind.accounts
    assert log.time_s.min() >= 0 and log.time_s.max() < 4 * DAY_S
    assert log.account.max() < log.n_accounts and log.topic.max() < 64
    with pytest.raises(ValueError, match="set by honest traffic"):
        simulate(0, [])


def test_only_attackers_harvest_and_resellers_carry_real_users(log):
    owner = log.campaign[log.account]
    assert not log.is_harvest[owner == NO_CAMPAIGN].any()
    for number, kind in enumerate((*KNOWN, *HELD_OUT)):
        share = log.is_harvest[owner == number].mean()
        assert share == pytest.approx(1 - kind.cover, abs=0.06)


def test_campaigns_share_networks_and_means_of_payment_as_their_kind_says(log):
    for number, kind in enumerate((*KNOWN, *HELD_OUT)):
        if kind.accounts > 1:
            mine = log.campaign == number
            assert len(np.unique(log.payment[mine])) <= round(kind.accounts / kind.payment)
    assert len(np.unique(log.payment[np.array(log.kind) == "chat"])) == (np.array(log.kind) == "chat").sum()


def test_the_past_of_a_log_has_no_later_query(log):
    early = log.until(1.5)
    assert early.time_s.max() < 1.5 * DAY_S and early.n_accounts == log.n_accounts
    assert len(early.account) == (log.time_s < 1.5 * DAY_S).sum()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9))
@settings(deadline=None, max_examples=40)
def test_different_topics_are_counted_as_if_all_samples_were_drawn(topics):
    traffic = by_hand([(0, 0.5, topic, 9, False) for topic in topics])
    drawn, detectors.DRAWN = detectors.DRAWN, 3
    try:
        found = detectors._different(traffic, traffic.topic, 64)[0]
    finally:
        detectors.DRAWN = drawn
    samples = list(itertools.combinations(topics, min(3, len(topics))))
    assert found == pytest.approx(np.mean([len(set(sample)) for sample in samples]))


def test_scores_of_a_log_counted_by_hand():
    rows = [(0, 0.1, 5, 7, True), (0, 0.6, 5, 7, False), (1, 0.2, 6, 7, False), (2, 0.3, 6, 400, True)]
    rows += [(2, 0.9, 7, 401, True)]
    traffic = by_hand(rows, network=[1, 1, 2], payment=[4, 5, 6])
    found = dict(zip(detectors.DETECTORS, detectors.scores(traffic, 1.0).T, strict=True))
    assert found["volume"].tolist() == pytest.approx([math.log(3), math.log(2), math.log(3)])
    # Accounts 0 and 1 share a template and a network, so their queries are pooled; 2 stands alone.
    assert found["linkage"].tolist() == pytest.approx([math.log(4), math.log(4), 0.0])
    own = np.array([0.5, 0.0, 1.0])
    n = np.array([2, 1, 2])
    assert found["reasoning"] == pytest.approx((own * n + own.mean() * 16) / (n + 16))
    users = np.array([math.log(2), math.log(2), 0.0])
    assert found["template"] == pytest.approx((users * n + users.mean() * 16) / (n + 16))
    kinds = np.array([1.0, 1.0, 2.0])
    assert found["coverage"] == pytest.approx((kinds * n + kinds.mean() * 16) / (n + 16))


def test_groups_are_the_connected_accounts(log):
    """Against a flood over every pair of accounts."""
    few = simulate(40, [(replace(STYLES["pool"], accounts=6), 1)], days=1, seed=3)
    uses = {a: set(few.template[few.account == a].tolist()) for a in range(few.n_accounts)}

    def linked(a: int, b: int) -> bool:
        return few.payment[a] == few.payment[b] or (
            few.network[a] == few.network[b] and bool(uses[a] & uses[b])
        )

    group = detectors.groups(few)
    for start in range(few.n_accounts):
        reached, edge = {start}, [start]
        while edge:
            a = edge.pop()
            new = {b for b in range(few.n_accounts) if b not in reached and linked(a, b)}
            reached |= new
            edge += new
        assert set(np.flatnonzero(group == group[start]).tolist()) == reached


def test_scores_do_not_look_at_who_is_an_attacker(log):
    blind = replace(log, campaign=np.full(log.n_accounts, NO_CAMPAIGN), kind=("chat",) * log.n_accounts)
    assert np.array_equal(detectors.scores(log, 4), detectors.scores(blind, 4))


def test_the_logistic_fit_is_the_minimum_of_its_loss():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3)) * [1, 5, 0.2] + [3, 0, 1]
    y = x[:, 0] + rng.normal(size=80) > 3.4
    fitted = detectors.fit_logistic(x, y, penalty=0.1)
    z = (x - x.mean(0)) / x.std(0)

    def loss(w):
        logit = z @ w[:-1] + w[-1]
        each = np.logaddexp(0, logit) - y * logit
        return 0.5 * each[y].mean() + 0.5 * each[~y].mean() + 0.05 * w @ w

    best = optimize.minimize(loss, np.zeros(4), tol=1e-10).x
    assert detectors.logistic(fitted, x) == pytest.approx(z @ best[:-1] + best[-1], abs=1e-4)


def test_surprise_adds_up_how_rare_each_score_is():
    honest = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 5.0]])
    found = np.array([[2.0, 0.0], [9.0, 9.0]])
    expected = [-math.log(3 / 4) - math.log(4 / 4), -2 * math.log(1 / 4)]
    assert detectors.surprise(honest, found) == pytest.approx(expected)


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_the_area_under_the_curve_is_the_chance_to_rank_right(seed):
    rng = np.random.default_rng(seed)
    honest, attack = rng.integers(0, 6, 13).astype(float), rng.integers(2, 9, 7).astype(float)
    x, y = detection.roc(honest, attack)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1) and (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all()
    area = detection.auroc(honest, attack)
    assert np.trapezoid(y, x) == pytest.approx(area)
    assert area == pytest.approx(oracle.mannwhitneyu(attack, honest).statistic / (13 * 7))
    with pytest.raises(ValueError, match="draw more traffic"):
        detection.roc(honest, attack[:0])


@pytest.mark.parametrize(("hits", "tries"), [(0, 20), (3, 40), (40, 40)])
def test_wilson_is_that_of_scipy(hits, tries):
    theirs = oracle.binomtest(hits, tries).proportion_ci(method="wilson")
    ours = detection.wilson(hits, tries)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_a_threshold_stops_the_stated_share_of_the_log_it_was_set_on(log):
    tuned = detection.tune(log, 4)
    for how in (*detection.COMBINATIONS, "volume"):
        value = tuned.combine(log, detectors.scores(log, 4), how)
        stopped = value[~log.is_attack] > tuned.threshold(how, 0.05)
        assert stopped.mean() <= 0.05


def test_linked_accounts_lend_each_other_what_exceeds_the_usual(log):
    tuned = detection.tune(log, 4)
    found = detectors.scores(log, 4)
    own, linked = (tuned.combine(log, found, how) for how in ("surprise", "linked"))
    usual = np.quantile(own[~log.is_attack], 0.95)
    group = detectors.groups(log)
    for a in (0, int(np.flatnonzero(log.campaign == 1)[0])):
        others = [b for b in np.flatnonzero(group == group[a]) if b != a]
        assert linked[a] == pytest.approx(own[a] + sum(max(own[b] - usual, 0) for b in others))
    with pytest.raises(ValueError, match="choose among those"):
        tuned.combine(log, found, "all")


def test_either_is_the_rarer_of_the_two(log):
    tuned = detection.tune(log, 4)
    found = detectors.scores(log, 4)
    own, linked, either = (tuned.combine(log, found, how) for how in ("surprise", "linked", "either"))
    honest = ~log.is_attack
    for a in (0, 7, int(np.flatnonzero(log.campaign == 0)[0]), int(np.flatnonzero(log.campaign == 1)[0])):
        above = min((value[honest] >= value[a]).sum() for value in (own, linked))
        assert either[a] == pytest.approx(-math.log((above + 1) / (honest.sum() + 1)))


def test_delay_and_leak_of_a_campaign_that_wakes_late(log):
    """One account doubles its queries every day; the threshold on volume lies between days two and three."""
    rows = [(0, day + i / 100, 3, 9, True) for day, n in enumerate((1, 2, 12, 20)) for i in range(n)]
    rows += [(1, 0.5, 3, 10, False)]
    traffic = by_hand(rows, campaign=[0, NO_CAMPAIGN])
    tuned = replace(detection.tune(log, 4), days=4)
    (row,) = detection.detection_delay(traffic, tuned, "volume", math.log1p(2))
    assert row == {"campaign": 0, "day": 3.0, "leaked": pytest.approx(15 / 35)}
    (row,) = detection.detection_delay(traffic, tuned, "volume", math.log1p(100))
    assert row["day"] == math.inf and row["leaked"] == 1.0


def test_the_cost_to_the_honest_counted_by_hand():
    rows = [(0, 0.1, 1, 9, False)] * 3 + [(1, 0.1, 1, 9, False)] + [(2, 0.1, 1, 9, True)] * 5
    traffic = by_hand(rows, campaign=[NO_CAMPAIGN, NO_CAMPAIGN, 0])
    cost = detection.honest_cost(np.array([5.0, 1.0, 6.0]), traffic, 4.0, attackers_in=11)
    assert (cost["accounts"], cost["queries"], cost["caught"]) == (0.5, 0.75, 1.0)
    assert cost["precision"] == pytest.approx(1 / (1 + 10 * 0.5))


def test_intervals_hold_the_value_and_narrow_with_campaigns():
    widths = []
    for campaigns in (2, 8):
        log = simulate(100, [(replace(STYLES["pool"], accounts=5, queries=15), campaigns)], days=2, seed=5)
        value = detectors.coverage(log, 2)
        interval = detection.auroc_interval(value, log, "pool", draws=60)
        assert interval.low <= interval.value <= interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] < widths[0]


def test_judgement_uses_other_accounts_and_styles_than_tuning():
    tuned, log, found = detection.study(KNOWN[:1], HELD_OUT[2:], honest=30, campaigns=1, days=2, seed=0)
    assert set(tuned.log.kind) <= {kind.name for kind in (*HONEST, KNOWN[0])}
    assert HELD_OUT[2].name in log.kind and found.shape == (log.n_accounts, len(detectors.DETECTORS))
    assert not np.array_equal(np.sort(log.time_s)[:20], np.sort(tuned.log.time_s)[:20])
