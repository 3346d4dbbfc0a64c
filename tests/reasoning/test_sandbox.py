"""Sandboxes: effects once whatever is cut where; images: layers over layers, loaded on demand."""

import pytest

from workbench.reasoning.images import BLOCK_BYTES, Image, write_layer
from workbench.reasoning.sandbox import Sandbox

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


def test_a_process_answers_as_a_function_does():
    assert Sandbox(kind="process").execute(0, COMMANDS[1]) == Sandbox().execute(0, COMMANDS[1])
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
    assert len(image) == 10 and image.loaded_bytes == 0
    assert image.read(7) == block("b") and image.read(2) == block("a") and image.read(11) == block("c")
    assert image.loaded_bytes == 3 * BLOCK_BYTES
    image.copy_to(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == block("a") * 7 + block("b") + block("a") + block("c")
    with pytest.raises(ValueError, match="pad it"):
        write_layer(tmp_path / "short", {0: b"x"})
