"""Judging is a family like the others, and its truth is the judged family's rule."""

import random

from workbench.reasoning.tasks import Addition, ModularChain, draw_problems
from workbench.reasoning.tasks.judging import Judging, judgements


def test_half_of_the_answers_are_right_and_the_verdicts_say_which():
    family = Judging(Addition())
    problems = draw_problems(family, 300, 0)
    verdicts = [problem.solve(random.Random(0)).answer for problem in problems]
    assert 0.4 < verdicts.count("yes") / 300 < 0.6
    for problem, verdict in zip(problems, verdicts, strict=True):
        words = problem.question.split()
        digits, answer = words[2:12], "".join(words[13:])
        a, b = (int("".join(own[::-1])) for own in (digits[::2], digits[1::2]))
        assert (a + b == int(answer)) == (verdict == "yes")
        assert problem.verify(verdict) and not problem.verify("no" if verdict == "yes" else "yes")
        assert not problem.verify("") and not problem.verify("yes yes")


def test_a_question_and_its_judgement_are_on_the_same_side_of_the_split():
    family = ModularChain()
    for problem in draw_problems(family, 30, 0, is_held_out=True):
        (own,) = judgements([problem], [[problem.solve().answer, None, ""]])
        assert own.key.endswith(problem.question) and own.verify("yes")
    sides = [p.is_held_out for p in draw_problems(Judging(family), 30, 0, is_held_out=True)]
    assert all(sides)
