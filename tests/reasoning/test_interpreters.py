"""The two places that work out what a policy wrote: exact on what they know, closed to all else."""

import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.reasoning.tasks.expressions import BadExpression, evaluate
from workbench.reasoning.tasks.lists import run_program


def random_expression(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.3:
        return str(rng.randrange(10))
    text = f" {rng.choice('+-*')} ".join(random_expression(rng, depth - 1) for _ in range(2))
    return f"( {text} )" if rng.random() < 0.5 else text


@given(st.integers(0, 10_000))
def test_expressions_have_pythons_value(seed):
    text = random_expression(random.Random(seed), 3)
    assert evaluate(text) == eval(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 +",
        "( 1",
        "1 2",
        "1 / 2",
        "x",
        "1 ** 9",
        "\N{FULLWIDTH DIGIT NINE}",
        "9999999 * 9999999",
        "( " * 9 + "1" + " )" * 9,
        "1 + " * 40 + "1",
    ],
)
def test_what_is_no_bounded_expression_is_refused(text):
    with pytest.raises(BadExpression):
        evaluate(text)


@given(st.text(max_size=80))
def test_no_text_does_anything_but_evaluate_or_be_refused(text):
    with suppress(BadExpression):
        assert isinstance(evaluate(text), int)


def test_programs_are_bounded_and_closed():
    assert run_program(["rotate", "double"], [3, 1, 9]) == [[1, 9, 3], [2, 8, 6]]
    for program in (["import"], ["double"] * 17):
        with pytest.raises(ValueError, match="run_program"):
            run_program(program, [1, 2])
