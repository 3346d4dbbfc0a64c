"""The explorer of V4.1's memory asks for the release's rows."""

import pytest

from workbench.model.v41 import load_v41
from workbench.model.v41.ngrams import table_primes
from workbench.widgets.v41 import EXAMPLE, lookups, memory_explorer, memory_figure


def test_rows_lie_in_their_tables_and_repeat_with_the_text():
    tokens, cells = lookups("Ä river; a RIVER", 14)
    assert tokens == ["Ä", "river", ";", "a", "RIVER"]
    primes = table_primes(load_v41())[1]
    for cell in cells:
        order = cell["order"] - 2
        start = int(primes[:order].sum())
        assert start <= cell["row"] < start + int(primes[order, 0])
    seen = {(cell["token"], cell["order"]): cell["first"] for cell in cells}
    assert seen[4, 2] == 1 and seen[4, 3] == 4 and seen[1, 2] == 1


def test_each_layer_hashes_in_its_own_way():
    rows = [{cell["row"] for cell in lookups(EXAMPLE, layer)[1]} for layer in (1, 14)]
    assert not rows[0] & rows[1]


def test_the_explorer_follows_the_text_and_an_empty_one_is_refused():
    explorer = memory_explorer()
    before = explorer.figure.to_json()
    explorer._controls["text"].value = "one two"
    assert explorer.figure.to_json() != before
    with pytest.raises(ValueError, match="got 0 tokens and layer 1"):
        memory_figure("  ", 1)
    with pytest.raises(ValueError, match="layer 3; it needs"):
        memory_figure("word", 3)
