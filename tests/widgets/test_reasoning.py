"""The reasoning explorers' pure functions: their numbers, and that they follow their sliders."""

import dataclasses

import numpy as np
import pytest

from workbench.reasoning.evaluation import evaluate
from workbench.reasoning.policy import new_policy, policy_config
from workbench.reasoning.tasks import Parity, draw_problems
from workbench.widgets.reasoning import restarts_explorer, restarts_figure, trace_rows, traces_explorer


def test_traces_hold_what_was_written_and_the_slider_picks_a_problem():
    policy = new_policy(0, policy_config(hidden_size=32, moe_intermediate_size=16))
    evaluation = evaluate(policy, draw_problems(Parity(), 3, 0), answers=2, max_new_tokens=4)
    rows = trace_rows({"before": evaluation, "after": evaluation}, answers=2)
    assert len(rows) == 12
    assert rows[3]["text"] == evaluation.text(1, 1) and rows[3]["question"] == evaluation.problems[1].question
    explorer = traces_explorer(rows)
    explorer._controls["problem"].value = 2
    assert evaluation.problems[2].question in explorer.figure.data[0].header["values"][1]


def test_the_first_traces_are_those_of_the_problem_that_gained_most():
    policy = new_policy(0, policy_config(hidden_size=32, moe_intermediate_size=16))
    before = evaluate(policy, draw_problems(Parity(), 3, 0), answers=2, max_new_tokens=4)
    before.is_right[:] = [[True, False], [True, True], [False, False]]
    after = dataclasses.replace(before, is_right=np.array([[True, True], [False, True], [True, True]]))
    rows = trace_rows({"before": before, "after": after}, answers=2)
    order = [row["question"] for row in rows if row["policy"] == "after"][::2]
    assert order == [before.problems[i].question for i in (2, 0, 1)]
    assert [row["is_right"] for row in rows if row["problem"] == 2] == [True, True, False, True]
    alone = trace_rows({"before": before}, answers=1)
    assert [row["question"] for row in alone] == [problem.question for problem in before.problems]


def test_restarts_shorten_by_the_law():
    figure = restarts_figure([2, 2, 10, 10], hazard=0.1)
    before, after = figure.data
    assert before.y == (0.5, 0.5)
    assert after.y[1] == pytest.approx(0.9**10 / (0.9**2 + 0.9**10))
    explorer = restarts_explorer([2, 10])
    explorer._controls["hazard"].value = 0.0
    assert explorer.figure.data[1].y == pytest.approx((0.5, 0.5))
