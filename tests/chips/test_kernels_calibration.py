"""The calibration finds constants that are known, and predicts rows it has not seen."""

import json

import numpy as np
import pytest

from workbench.chips.calibration import Table, assumed, fit_all, read_rows
from workbench.chips.calibration.fit import constants_of, fit_stage, with_values
from workbench.chips.calibration.stages import STAGES
from workbench.chips.calibration.table import ASCEND_FILE
from workbench.chips.kernels import Constant, load_calibration
from workbench.chips.kernels.constants import CALIBRATION_FILE, NAMES


@pytest.fixture(scope="module")
def table():
    return Table(read_rows())


def test_constants_that_made_the_times_are_found_again(table):
    truth = {
        "hopper/gemm.16/launch": 3e-6, "hopper/gemm.16/efficiency": 0.6, "hopper/gemm.8/launch": 9e-6,
        "hopper/gemm.8/efficiency": 0.5, "hopper/any/memory": 0.7, "hopper/any/load": 2e11,
    }  # fmt: skip
    part = table.where((table.gpu == "h100_sxm") & (table.op == "gemm"))
    rng = np.random.default_rng(0)
    made = with_values(assumed(), {**truth, "sm/any/overlap": 4.0, "hopper/gemm/warm": 0.0})
    part.measured = part.predict(made)[1] * np.exp(0.02 * rng.standard_normal(len(part)))
    fit = fit_stage(STAGES[0], part, assumed())
    found = {c.id: c for c in constants_of(fit, part, rng)}
    for name in ("hopper/gemm.16/launch", "hopper/gemm.16/efficiency", "hopper/gemm.8/efficiency",
                 "hopper/any/memory"):  # fmt: skip
        assert found[name].value == pytest.approx(truth[name], rel=0.12), name
        assert found[name].lower <= found[name].value <= found[name].upper
    assert np.median(np.abs(fit.residual)) < 0.03


def test_rows_left_out_by_shape_are_predicted_from_the_others(table):
    hopper = table.where(table.generation == "hopper")
    shapes = np.unique(hopper.shape, return_inverse=True)[1]
    held_out = np.random.default_rng(3).random(shapes.max() + 1)[shapes] < 0.4
    fitted = fit_all(hopper.where(~held_out))
    part = hopper.where(held_out)
    errors = np.abs(part.predict(fitted)[1] / part.measured - 1)
    assert len(part) > 60 and np.median(errors) < 0.12


def test_a_gpu_without_rows_inherits_from_its_family(table):
    others = table.where(np.isin(table.gpu, ("a100_sxm", "h100_sxm")) & (table.op == "gemm"))
    fitted = fit_all(others)
    assert "blackwell/gemm.16/efficiency" not in fitted
    inherited = fitted.find("blackwell", "sm", "gemm.16", "efficiency")
    assert inherited.id == "sm/gemm.16/efficiency" and inherited.kind == "derived"
    ends = [fitted[f"{g}/gemm.16/efficiency"].value for g in ("ampere", "hopper")]
    assert min(ends) <= inherited.value <= max(ends)


def test_the_shipped_constants_predict_the_table_within_the_aim(table):
    lower, expected, upper = table.predict(load_calibration())
    errors = np.abs(expected / table.measured - 1)
    for op in set(table.op):
        assert np.median(errors[table.op == op]) <= 0.15, op
    assert np.median(errors) <= 0.09 and np.percentile(errors, 90) <= 0.25
    assert np.mean((lower <= table.measured) & (table.measured <= upper)) > 0.9


def test_the_report_says_what_left_out_gpus_and_shapes_gave():
    report = load_calibration().report
    everything = report["kernels"]["all"]
    assert everything["gpu_left_out_median"] <= 0.15 and everything["shapes_left_out_median"] <= 0.15
    assert everything["fitted_median"] <= everything["shapes_left_out_median"]
    assert {row.split(",")[0] for row in ASCEND_FILE.read_text().splitlines()[1:]} == set(report["ascend"])


def test_every_constant_is_named_bounded_and_sourced():
    document = json.loads(CALIBRATION_FILE.read_text())
    assert len({row["id"] for row in document["constants"]}) == len(document["constants"])
    for row in document["constants"]:
        constant = Constant(**row)  # an interval that holds its value, or it raises
        assert constant.source and constant.unit == NAMES[constant.id.rpartition("/")[2]]
        assert constant.kind != "fitted" or constant.rows > 0


def test_few_constants_carry_many_rows(table):
    fitted = [c for c in load_calibration().values() if c.kind == "fitted" and not c.id.endswith("/scatter")]
    assert len(fitted) < len(table) / 10


def test_an_interval_without_its_value_and_an_unknown_path_are_refused():
    with pytest.raises(ValueError, match=r"Constant: x is 2 outside \[0, 1\]"):
        Constant("x", 2, 0, 1, "1", "assumed", "here")
    with pytest.raises(ValueError, match="colour is unknown"):
        load_calibration().find("hopper", "sm", "gemm.16", "colour")
