"""Sandboxes: effects once whatever is cut where; images: layers over layers, loaded on demand."""

from typing import get_args

import pytest

from workbench.facts import fact
from workbench.reasoning.fleet import fleet_rows, most_sandboxes
from workbench.reasoning.images import BLOCK_BYTES, Image, write_layer
from workbench.reasoning.sandbox import Kind, Sandbox

COMMANDS = ["append bell ding", "calc ( 3 + 4 ) * 5", "append bell dong", "read bell", "append bell ding"]


def play(sandbox: Sandbox) -> list[str]:
    return [sandbox.execute(number, command) for number, command in enumerate(COMMANDS)]


def test_answers_are_those_worked_out_by_hand():
    sandbox = Sandbox()
    assert play(sandbox) == ["1 lines", "35", "2 lines", "ding\ndong\n", "3 lines"]
    assert sandbox.files == {"bell": "ding\ndong\nding\n"}


def test_cut_at_any_byte_it_ends_the_same_and_rings_no_bell_twice(tmp_path):
    whole = Sandbox(tmp_path / "whole")
    results = play(whole)
    content = (tmp_path / "whole").read_bytes()
    for cut in range(len(content) + 1):
        path = tmp_path / "cut"
        path.write_bytes(content[:cut])
        resumed = Sandbox(path)
        before = len(resumed.log)
        assert before == content[:cut].count(b"\n")
        assert play(resumed) == results and resumed.files == whole.files
        assert resumed.executed == len(COMMANDS) - before
        assert path.read_bytes() == content


def test_every_kind_answers_alike_and_can_take_over_anothers_log(tmp_path):
    for kind in get_args(Kind):
        sandbox = Sandbox(tmp_path / kind, kind=kind)
        assert [sandbox.execute(n, command) for n, command in enumerate(COMMANDS[:2])] == ["1 lines", "35"]
        resumed = Sandbox(tmp_path / kind, kind="function")
        assert play(resumed) == play(Sandbox()) and resumed.executed == len(COMMANDS) - 2
    with pytest.raises(ValueError, match="got the kind"):
        Sandbox(kind="moon")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["__import__('os')", "calc __import__", "calc 9 * 9999999999", "", "calc ( 1"]
)
def test_text_is_never_run(text):
    assert Sandbox().execute(0, text).startswith("error")


def test_another_trajectory_is_refused():
    sandbox = Sandbox()
    play(sandbox)
    with pytest.raises(ValueError, match="same trajectory"):
        sandbox.execute(0, "read bell")
    with pytest.raises(ValueError, match="without gaps"):
        sandbox.execute(9, "read bell")


def test_the_topmost_layer_wins_and_only_what_is_read_is_loaded(tmp_path):
    def block(letter: str) -> bytes:
        return letter.encode() * BLOCK_BYTES

    below = write_layer(tmp_path / "below", {n: block("a") for n in range(9)})
    above = write_layer(tmp_path / "above", {7: block("b"), 11: block("c")})
    image = Image(above, below)
    assert image.loaded_bytes == 0
    assert image.read(7) == block("b") and image.read(2) == block("a") and image.read(11) == block("c")
    assert image.loaded_bytes == 3 * BLOCK_BYTES
    image.copy_to(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == block("a") * 7 + block("b") + block("a") + block("c")
    with pytest.raises(KeyError):
        image.read(10)
    with pytest.raises(ValueError, match="pad them"):
        write_layer(tmp_path / "short", {0: b"x"})


def test_a_host_holds_what_its_memory_does_by_hand():
    """One host of 2 TiB less a tenth; a microVM of 128 MiB and 5 MiB around it."""
    assert most_sandboxes("microvm", hosts=1) == 0.9 * 2**41 // (133 * 2**20)
    assert most_sandboxes("microvm", hosts=7) == 7 * most_sandboxes("microvm", hosts=1)
    rows = fleet_rows(hosts=3)
    assert [row["kind"] for row in rows] == list(get_args(Kind))[1:]
    assert [row["sandboxes"] for row in rows] == sorted((r["sandboxes"] for r in rows), reverse=True)
    starting = [row["start_s"] for row in rows]
    assert starting == sorted(starting) and starting[1] == fact("sandbox_microvm_start_s") == 0.125
    with pytest.raises(ValueError, match="most_sandboxes"):
        most_sandboxes("microvm", hosts=0)
