"""Every family: its own solutions are right, wrong answers are not, and the two sides of the split differ."""

import random
from itertools import pairwise

import pytest

from workbench.reasoning.completions import solved
from workbench.reasoning.tasks import FAMILIES, Addition, Division, Problem, draw_problems, leaked
from workbench.reasoning.vocabulary import VOCABULARY, Vocabulary

NAMES = sorted(FAMILIES)


def checked_by_hand(problem: Problem, answer: str) -> bool:
    """The rule of each family once more, in another way. Python runs these texts: they are our own."""
    words = problem.question.split()[1:]
    name = problem.family.name
    if name == "addition":
        a, b = (sum(int(d) * 10**i for i, d in enumerate(own)) for own in (words[::2], words[1::2]))
        return int(answer.replace(" ", "")) == a + b and len(answer.split()) == 6
    if name == "modular chain":
        text = words[0]
        for sign, operand in zip(words[1::2], words[2::2], strict=True):
            text = f"({text} {sign} {operand})"
        return int(answer) == eval(text) % 7
    if name == "parity":
        return int(answer) == sum(map(int, words)) % 2
    if name == "division":
        return (int(words[0]) * int(answer) - int(words[1])) % 17 == 0
    if name == "countdown":
        numbers = sorted(w for w in words[: words.index("=")])
        return sorted(w for w in answer.split() if w.isdigit()) == numbers and eval(answer) == int(words[-1])
    if name == "sorting":
        return answer.split() == sorted(words)
    if name == "graph path":
        edges = set(" ".join(words).split(" : ")[0].split(" , "))
        nodes = answer.split()
        return {f"{a} {b}" for a, b in pairwise(nodes)} <= edges and nodes[:: len(nodes) - 1] == words[-2:]
    row = (
        [int(w) for w in words[:3]]
        if name == "program search"
        else [int(w) for w in words[words.index(":") + 1 :]]
    )
    program = answer.split() if name == "program search" else words[: words.index(":")]
    for operation in program:
        match operation:
            case "reverse":
                row.reverse()
            case "rotate":
                row.append(row.pop(0))
            case "swap":
                row[0], row[1] = row[1], row[0]
            case "increment":
                row = [0 if x == 9 else x + 1 for x in row]
            case "double":
                row = [int(str(x + x)[-1]) for x in row]
            case "negate":
                row = [0 if x == 0 else 10 - x for x in row]
    return " ".join(map(str, row)) == (" ".join(words[4:]) if name == "program search" else answer)


@pytest.mark.parametrize("name", NAMES)
def test_own_solutions_are_right_by_two_rules_and_fit_the_vocabulary(name):
    rng = random.Random(0)
    for problem in draw_problems(FAMILIES[name], 150, seed=3):
        answer = problem.solve(rng).answer
        assert problem.verify(answer) and checked_by_hand(problem, answer)
        ids = solved(problem, rng).ids
        assert VOCABULARY.encode(VOCABULARY.decode(ids)) == ids


def test_haste_gives_up_after_a_wrong_try_and_answers_with_it():
    family = Division(luck=0.25, haste=0.5)
    found = [
        (problem, problem.solve(random.Random(i))) for i, problem in enumerate(draw_problems(family, 800, 0))
    ]
    for problem, (thinking, answer) in found:
        last, mark = thinking.split()[-3::2]
        assert last == answer and (mark == "!") == problem.verify(answer)
    # A try is right with 1/4, else the search ends with 1/2: 1/4 / (1 - 3/4 * 1/2) = 2/5.
    assert sum(problem.verify(own.answer) for problem, own in found) / 800 == pytest.approx(0.4, abs=0.05)
    patient = [Problem(Division(), problem.level, problem.question) for problem, _ in found]
    assert all(
        p.is_held_out == q.is_held_out and p.key == q.key for p, (q, _) in zip(patient, found, strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_anything_else_is_wrong(name):
    hostile = ["", " ", "<end>", "__import__ ( 'os' )", "9" * 5000, "( " * 200 + "1", "+ +", "yes", "²", "-1"]
    for problem in draw_problems(FAMILIES[name], 20, seed=4):
        right = problem.solve().answer
        assert not any(problem.verify(text) for text in hostile)
        assert not problem.verify(right + " " + right) or name in ("program search", "graph path")
        assert not problem.verify(f"{right} <end>") and not problem.verify(f"? {right}")


@pytest.mark.parametrize("name", NAMES)
def test_training_and_held_out_problems_never_meet(name):
    training = draw_problems(FAMILIES[name], 400, seed=0)
    held_out = draw_problems(FAMILIES[name], 30, seed=1, is_held_out=True, are_different=True)
    assert not leaked(training, held_out)
    assert not leaked([VOCABULARY.decode(solved(p, random.Random(0)).ids) for p in training], held_out)
    assert len({p.key for p in held_out}) == 30
    assert leaked([*training, held_out[7]], held_out) == [held_out[7]]
    assert leaked([VOCABULARY.decode(solved(held_out[7], random.Random(0)).ids)], held_out) == [held_out[7]]


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_problems_and_levels_are_kept(name):
    family = FAMILIES[name]
    assert draw_problems(family, 20, 5) == draw_problems(family, 20, 5)
    assert draw_problems(family, 20, 5) != draw_problems(family, 20, 6)
    hardest = family.levels[-1]
    assert {p.level for p in draw_problems(family, 20, 5, levels=[hardest])} == {hardest}


def test_the_same_sum_in_the_other_order_is_a_leak():
    a = Problem(Addition(), 5, "add 1 2 3 4 5 6 7 8 9 0")
    b = Problem(Addition(), 5, "add 2 1 4 3 6 5 8 7 0 9")
    assert a.key == b.key and leaked([a], [b]) == [b]


def test_a_family_without_enough_problems_says_so():
    with pytest.raises(ValueError, match="ask for fewer or add levels"):
        draw_problems(Division(levels=(4,)), 60, 0, is_held_out=True, are_different=True)
    with pytest.raises(ValueError, match="choose among those"):
        draw_problems(Division(), 1, 0, levels=[5])


def test_the_vocabulary_refuses_unknown_and_doubled_words():
    with pytest.raises(ValueError, match="it knows"):
        VOCABULARY.encode("add one")
    with pytest.raises(ValueError, match="remove the doubles"):
        Vocabulary(("a", "a"))
