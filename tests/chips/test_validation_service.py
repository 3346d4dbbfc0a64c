"""Serving runs as rows describe them: who decodes while others prefill, and how a group of ranks is cut."""

import dataclasses

import pytest

from workbench.chips.command import DATA
from workbench.chips.validation.judge import current_engines
from workbench.chips.validation.rows import read_measurements
from workbench.chips.validation.service import riding, service_of
from workbench.chips.validation.setup import setup_of

ROWS = {row.id: row for row in read_measurements(DATA / "measurements.csv")}
ENGINES = current_engines()


def service(id, users, **changes):
    row = dataclasses.replace(ROWS[id], batch=str(users), **changes)
    setup = setup_of(row)
    return service_of(row, setup, users, ENGINES[setup.engine])


@pytest.mark.parametrize(
    ("id", "layout", "share"),
    [
        # SGLang: groups choose for themselves, unless drafts make all of them wait; one group takes turns.
        ("103", "SGLang DP4 attention + EP4 (MegaMoE), no draft", 0.75),
        ("103", "SGLang DP4 attention + EP4 (MegaMoE), draft 1 step", 0.0),
        ("103", "SGLang TP4, no draft", 0.0),
        # One batch of prompts and tokens.
        ("103", "vLLM DP4 attention + EP4", 1.0),
        ("103", "TRT-LLM TP4", 1.0),
    ],
)
def test_who_decodes_in_a_pass_over_one_prompt(id, layout, share):
    run = service(id, 256, parallelism=layout)
    assert riding(run)(1.0) == pytest.approx(share)
    assert riding(run)(99.0) <= share


@pytest.mark.parametrize(("users", "heads"), [(4, 8), (20_000, 1)])
def test_few_users_of_an_expert_parallel_instance_share_its_heads(users, heads):
    decode = service("68", users).decode
    assert decode.attention_tp == heads and decode.ep == 8 and decode.ranks == 8
