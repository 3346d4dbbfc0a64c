"""A run on text from end to end: by call, by command, on two processes, killed and taken up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers

import workbench as wb
from workbench.model import from_pretrained
from workbench.model.tokenizer import Tokenizer
from workbench.training import text_run
from workbench.training.distributed.launch import joined
from workbench.training.text_run import TextRun, read_texts, run_on_text

CONFIG = wb.load_config("tiny").replace(vocab_size=290)
RUN = TextRun(steps=6, rows=4, row_tokens=32, micro_rows=2, checkpoint_every=2, held_out_rows=8)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Enough text for a few merges, in two folders."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "deeper").mkdir()
    for i in range(20):
        sums = " ".join(f"{a} plus {i} is {a + i}." for a in range(30))
        (folder / ("deeper" if i % 2 else ".") / f"{i}.{'md' if i % 3 else 'txt'}").write_text(sums)
    (folder / "not_this.py").write_bytes(b"\xff\xfe")
    return folder


@pytest.fixture(scope="module")
def done(texts, tmp_path_factory):
    """A finished run's folder and result."""
    folder = tmp_path_factory.mktemp("run")
    return folder, run_on_text(CONFIG, RUN, folder, texts=texts)


def test_transformers_loads_what_a_run_leaves(done):
    folder, result = done
    model = from_pretrained(folder / "model")
    peer = transformers.DeepseekV4ForCausalLM.from_pretrained(folder / "model")
    tokenizer = Tokenizer.load(folder / "model" / "tokenizer.json")
    ids = torch.tensor([tokenizer.encode("7 plus 5 is 12. 8 plus 5 is 13.")])
    with torch.no_grad():
        torch.testing.assert_close(model(ids), peer(ids).logits, rtol=0, atol=1e-5)
    assert json.loads((folder / "result.json").read_text()) == result
    assert result["parameters"] == sum(p.numel() for p in model.parameters())
    rows = pd.read_csv(folder / "rows.csv")
    assert list(rows["step"]) == [1, 2, 3, 4, 5, 6]
    assert rows["loss"].iloc[-1] < rows["loss"].iloc[0]


def test_a_run_that_was_killed_ends_as_one_that_was_not(done, texts, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def until_the_fifth(rows, _):
        for row in rows:
            if row["step"] == 5:
                raise Killed
            yield row

    with monkeypatch.context() as patch:
        patch.setattr(text_run, "with_bar", until_the_fifth)
        with pytest.raises(Killed):
            run_on_text(CONFIG, RUN, tmp_path, texts=texts)
    assert not (tmp_path / "model").exists()
    result = run_on_text(CONFIG, RUN, tmp_path, texts=texts)
    assert result["held_out_loss"] == done[1]["held_out_loss"]
    columns = ["step", "loss", "grad_norm"]
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "rows.csv")[columns], pd.read_csv(done[0] / "rows.csv")[columns]
    )


def test_two_processes_of_torchrun_end_where_one_does(done, texts, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    words = "--steps 6 --rows 4 --row-tokens 32 --micro-rows 2 --n-expert 2".split()
    found = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "workbench", "train", str(tmp_path / "run"), "--texts", str(texts)),
            *("--model", str(tmp_path / "config.json"), *words),
        ],
        capture_output=True, text=True, cwd=Path(text_run.__file__).parents[2], timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("held-out loss") == 1
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["processes"] == 2
    one = pd.read_csv(done[0] / "rows.csv")
    two = pd.read_csv(tmp_path / "run" / "rows.csv")
    assert list(two["loss"]) == pytest.approx(list(one["loss"]), rel=1e-4)
    assert len(from_pretrained(tmp_path / "run" / "model").state_dict()) > 0


def test_bad_input_says_what_to_do(done, texts, tmp_path):
    with pytest.raises(ValueError, match=r"model is a finished run's; give another folder"):
        run_on_text(CONFIG, RUN, done[0], texts=texts)
    with pytest.raises(ValueError, match=r"holds no \.txt or \.md file; give a folder of texts"):
        read_texts(tmp_path)
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8 .*; convert or remove it"):
        read_texts(tmp_path)
    with pytest.raises(ValueError, match=r"device 'tpu' is unknown; choose one of \['cpu', 'cuda', 'npu'\]"):
        run_on_text(CONFIG, RUN, tmp_path / "a", texts=texts, device="tpu")
    with pytest.raises(ValueError, match=r"sees no npu device here; .*use --device cpu"), joined("npu"):
        pass
    with pytest.raises(
        ValueError, match=r"n_expert=2 in one process; needs as many processes; start with torchr"
    ):
        run_on_text(CONFIG, RUN, tmp_path / "b", texts=texts, n_expert=2)
    assert not (tmp_path / "a").exists()
