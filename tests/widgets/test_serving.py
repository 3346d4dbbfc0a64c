"""The central explorer: what it draws is what the simulator says, it refuses what does not fit, in time."""

import time

import pytest

from workbench.chips import Mapping, Workload, predict
from workbench.chips.systems import load_system
from workbench.config import load_config
from workbench.widgets.serving import dollars_per_hour, explorer_figure, serving_explorer, setting

SETTING = dict(
    model="deepseek-v4-pro", system="atlas-950-superpod", chips=64, formats="as served",
    layout="experts over all", batch=48, context=8192, drafts=1,
)  # fmt: skip


def trace(figure, name):
    (found,) = [t for t in figure.data if t.name == name]
    return found


def test_the_star_is_the_prediction_and_lies_on_the_line():
    figure, one = explorer_figure(**SETTING), load_system("atlas-950-superpod")
    work = Workload(phase="decode", batch=48, context_tokens=8192, draft_tokens=1, accepted_length=1.79)
    made = predict(
        load_config("deepseek-v4-pro"), one.cluster(64), work, Mapping(dp=64, ep=64),
        precision=one.precision, with_engine=one.engine,
    )  # fmt: skip
    star, line = trace(figure, "this setting"), trace(figure, "simulated")
    assert star.x[0] == pytest.approx(float(made.tpot_s) * 1e3)
    assert star.y[0] == pytest.approx(float(made.tokens_per_s_per_chip))
    assert min(line.x) < star.x[0] < max(line.x)


def test_the_measured_point_of_the_same_setting_is_filled():
    near = trace(explorer_figure(**SETTING), "measured, like this one")
    # Row 254 of the table: 3,072 sequences on 64 chips at 27.79 ms.
    assert any(
        x == pytest.approx(27.79) and y == pytest.approx(1727.24) for x, y in zip(near.x, near.y, strict=True)
    )
    assert trace(explorer_figure(**SETTING | {"drafts": 0}), "measured, like this one").x == ()


def test_batches_that_do_not_fit_are_not_on_the_line():
    _, made, many = setting(**SETTING | {"batch": 1, "context": 1024 * 1024})
    assert made.fits and not many.fits.all()
    line = trace(explorer_figure(**SETTING | {"batch": 1, "context": 1024 * 1024}), "simulated")
    assert len(line.x) == many.fits.sum()


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match="do not fit into"):
        explorer_figure(**SETTING | {"chips": 4})


def test_prices_are_published_or_made_from_purchases_or_unknown():
    assert dollars_per_hour("h200")[0] == pytest.approx(1.74)
    assert "price" in dollars_per_hour("ascend-910c")[1]
    assert dollars_per_hour("ascend-950dt") is None
    assert "no price of this chip is known" in explorer_figure(**SETTING).layout.title.text


def test_the_explorer_follows_and_redraws_in_time():
    explorer = serving_explorer()
    explorer._controls["system"].value = "gb300-nvl72"
    assert "GB300" in explorer.figure.layout.title.text
    explorer_figure(**SETTING)
    start = time.process_time()
    explorer_figure(**SETTING | {"batch": 64})
    assert time.process_time() - start < 0.2
