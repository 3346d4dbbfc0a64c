"""The ledger is complete, says what the sources print, and refuses entries that cannot be judged."""

import json
from pathlib import Path

import pytest

from workbench.report import ledger
from workbench.report.ledger import KINDS, Claim, Value, load_claims

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
# Chapters of the ledger and how many claims each has.
CHAPTERS = {
    "H": 9, "A": 16, "M": 6, "O": 10, "T": 8, "S": 6, "Q": 7, "I": 17,
    "P": 10, "RL": 6, "E": 9, "L": 4, "W": 10, "F": 12,
}  # fmt: skip


def test_every_claim_is_there_and_no_other():
    expected = {f"{chapter}{number}" for chapter, size in CHAPTERS.items() for number in range(1, size + 1)}
    assert set(load_claims()) == expected | {"V41", *(f"V41-{number}" for number in range(1, 6))}


def test_every_claim_has_words_a_source_and_an_owner():
    for claim in load_claims().values():
        assert claim.text.endswith(".")
        assert claim.source
        assert claim.section
        assert claim.kind in KINDS
        assert claim.notebook is not None


def test_claims_of_one_section_stand_together():
    sections = [claim.section for claim in load_claims().values()]
    changes = [new for old, new in zip(["", *sections], sections, strict=False) if old != new]
    assert len(changes) == len(set(changes)) == 16


def test_owners_are_the_notebooks_that_exist():
    names = {path.stem[:2]: path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    assert names
    for claim in load_claims().values():
        assert claim.notebook == names.get(claim.notebook[:2], claim.notebook), claim.id


@pytest.mark.parametrize(
    ("claim", "name", "printed", "reach"),
    [
        # By hand from the report and the papers: claim, value, printed number, how far ours may be off.
        ("H1", "pro", 3.7, 0.185),
        ("H1", "flash", 9.8, 0.49),
        ("H2", "pro", 9.5, 0.1425),
        ("H2", "flash", 13.7, 0.2055),
        ("H3", "flash", 0.02, 0.001),
        ("A1", "pro_total", 1.6, 0.05),
        ("A1", "flash_active", 13, 0.5),
        ("A15", "pro_layers", 61, 0),
        ("I1", "balance", 6144, 0),
        ("I15", "pro", 8, 0.4),
        ("T5", "pro", 94.4, 0.05),
        ("V41", "kv_bytes", 890, 0),
        ("V41-5", "memory", 196, 0.5),
        ("V41-2", "second", 384_016_682, 0),
        ("F2", "cost_usd", 294_000, 1470),
        ("F3", "cost_usd", 5_576_000, 500),
        ("F7", "margin", 545, 0.5),
        ("F8", "v3", 70.272, 0.0005),
        ("F9", "llama", 2448, 122.4),
        ("F10", "tpot_ib", 14.76, 0.005),
        ("E7", "lead", 20, 0.5),
        ("W6", "win", 62.65, 0.005),
        ("W10", "pro_max", 86.52, 0.005),
    ],
)
def test_the_printed_number_and_its_tolerance_end_where_they_should(claim, name, printed, reach):
    (value,) = [value for value in load_claims()[claim].values if value.name == name]
    assert value.printed == printed
    outside = reach * 1.001 + 1e-6 * printed
    assert value.agrees(printed + 0.999 * reach)
    assert value.agrees(printed - 0.999 * reach)
    assert not value.agrees(printed + outside)
    assert not value.agrees(printed - outside)


def test_the_end_of_a_decimal_tolerance_is_inside():
    assert 17.3 - 17.2 > 0.1  # in binary; the reader of the ledger counts in decimals
    assert Value(name="x", printed=17.2, absolute=0.1).agrees(17.3)


def test_what_is_printed_without_a_tolerance_is_no_target():
    claim = load_claims()["H1"]
    assert [value.name for value in claim.targets] == ["pro", "flash"]
    assert {value.name for value in claim.values} == {"pro", "flash", "pro_percent", "flash_percent"}


def test_trained_and_simulated_claims_depend_on_the_profile():
    kinds = {claim.kind for claim in load_claims().values() if claim.profile_dependent}
    assert kinds == {"scaled", "simulated"}
    assert load_claims()["H1"].profile_dependent is False


def test_claims_cannot_be_changed():
    with pytest.raises(AttributeError):
        load_claims()["H1"].text = "another"


def a_claim(**changes) -> Claim:
    return Claim(**({"id": "X1", "section": "s", "text": "t.", "kind": "exact", "source": "u"} | changes))


NUMBER = Value(name="x", printed=1.0, absolute=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Value(name="x", printed=1.0, relative=0.1, absolute=0.1),
            "give one of relative and absolute",
        ),
        (lambda: Value(name="x", printed=1.0, relative=-0.1), "not negative"),
        (lambda: Value(name="x", printed=True, relative=0.1), "'x' = True has a tolerance"),
        (lambda: Value(name="x", printed="4K", absolute=0), "only a number can have one"),
        (lambda: a_claim(kind="certain", values=(NUMBER,)), "kind 'certain'; choose one of"),
        (lambda: a_claim(values=(NUMBER, NUMBER)), "each name may occur once"),
        (lambda: a_claim(values=(Value(name="x", printed=1.0),)), "no target"),
        (lambda: a_claim(kind="scaled"), "no target"),
    ],
)
def test_an_entry_that_cannot_be_judged_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_id_that_occurs_twice_is_refused(tmp_path, monkeypatch):
    row = {"id": "X1", "section": "s", "text": "t.", "kind": "evaluation", "source": "u"}
    file = tmp_path / "report.json"
    file.write_text(json.dumps({"claims": [row, row]}), encoding="utf-8")
    monkeypatch.setattr(ledger, "LEDGER_FILE", file)
    with pytest.raises(ValueError, match="claim X1 occurs twice"):
        load_claims.__wrapped__()
