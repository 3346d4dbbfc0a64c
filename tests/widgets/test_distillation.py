"""The explorers: both KLs against moments that they must match; campaigns that hide or do not."""

import pytest
import torch

from workbench.widgets.distillation import (
    WORDS,
    bell,
    best_bell,
    campaign_explorer,
    campaign_figure,
    covering_explorer,
    covering_figure,
    two_bells,
)

PLACE = torch.arange(WORDS, dtype=torch.float64)


def mean(logits: torch.Tensor) -> float:
    return float((logits.softmax(-1) * PLACE).sum())


def test_two_bells_hold_the_shares_asked_for() -> None:
    p = two_bells(30, 0.7).softmax(-1)
    assert float(p[: WORDS // 2].sum()) == pytest.approx(0.7, abs=1e-3)
    assert int(p.argmax()) in (14, 15)


def test_forward_kl_matches_the_mean_and_reverse_kl_one_bell() -> None:
    """Among bells the forward KL is least where mean and variance are the teacher's."""
    teacher = two_bells(24, 0.6)
    wide, _ = best_bell(teacher, 0.0)
    narrow, _ = best_bell(teacher, 1.0)
    assert mean(wide) == pytest.approx(mean(teacher), abs=1.0)
    assert mean(narrow) == pytest.approx(17.5, abs=1.0)  # the more frequent one
    spread = (narrow.softmax(-1) * (PLACE - mean(narrow)) ** 2).sum().sqrt()
    assert float(spread) == pytest.approx(3.0, abs=0.5)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_a_teacher_that_is_a_bell_can_be_copied(beta: float) -> None:
    center, width = torch.tensor(29.5, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
    student, least = best_bell(two_bells(0, 0.5), beta)
    assert least < 1e-6
    torch.testing.assert_close(student.softmax(-1), bell(center, width).softmax(-1), atol=1e-3, rtol=0)


def test_figure_names_each_student_once() -> None:
    assert [t.name for t in covering_figure(0.5, 24, 0.6).data] == [
        "teacher",
        "forward KL",
        "reverse KL",
        "JSD, β = 0.5",
    ]
    assert len(covering_figure(1.0, 24, 0.6).data) == 3


def test_moving_a_control_redraws() -> None:
    explorer = covering_explorer()
    before = explorer.figure.to_json()
    _, controls, _ = explorer.view.children
    assert len(controls.children) == 3
    controls.children[0].value = 1.0
    assert explorer.figure.to_json() != before


def test_a_campaign_that_shares_payments_stands_out_and_a_scattered_one_hides() -> None:
    def caught(*campaign: float) -> int:
        title = campaign_figure(*campaign).layout.title.text
        return int(title.split("; ")[1].split("%")[0])

    assert caught(40, 40, 0.0, 8) > 90
    assert caught(100, 4, 0.8, 1) < 10


def test_the_campaign_explorer_redraws() -> None:
    explorer = campaign_explorer()
    before = explorer.figure.to_json()
    _, controls, _ = explorer.view.children
    assert len(controls.children) == 4
    controls.children[0].value = 5
    assert explorer.figure.to_json() != before
