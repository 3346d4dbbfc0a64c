"""The published tables say what the text reads from them."""

from workbench.distillation.published import accusations, r1_students, r1_texts


def test_texts_beat_reinforcement_at_equal_size():
    rows = {row["model"]: row for row in r1_students()}
    assert len(rows) == 7
    texts, reward = rows["R1-Distill-Qwen-32B"], rows["Qwen2.5-32B-Zero"]
    for field in ("AIME 2024", "MATH-500", "GPQA Diamond", "LiveCodeBench"):
        assert texts[field] > reward[field]


def test_r1_learnt_from_the_printed_number_of_texts():
    assert sum(row["texts"] for row in r1_texts()) == 804_745


def test_every_accusation_has_a_date_an_author_and_a_source():
    rows = accusations()
    assert all(row["date"].startswith("2026-02") and row["said by"] and row["source"] for row in rows)
    total, *parts = [row["exchanges"] for row in rows if row["said by"] == "Anthropic"]
    assert abs(sum(parts) / total - 1) < 0.05
