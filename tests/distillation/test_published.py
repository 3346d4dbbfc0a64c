"""The published table says what the text reads from it."""

from workbench.distillation.published import r1_students


def test_texts_beat_reinforcement_at_equal_size():
    rows = {row["model"]: row for row in r1_students()}
    assert len(rows) == 7
    texts, reward = rows["R1-Distill-Qwen-32B"], rows["Qwen2.5-32B-Zero"]
    for field in ("AIME 2024", "MATH-500", "GPQA Diamond", "LiveCodeBench"):
        assert texts[field] > reward[field]
