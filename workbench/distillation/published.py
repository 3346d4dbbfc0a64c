"""What was published and said: R1's students and texts, and the accusations of extraction."""

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[1] / "data"


def _read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((_FOLDER / name).read_text(encoding="utf-8"))
    return document


def r1_students() -> list[dict[str, Any]]:
    """One row a model: how it learnt, and its pass@1 in per cent on each benchmark (Codeforces a rating).

    Source: DeepSeek-R1 (arXiv 2501.12948), tables 5 and 6.
    """
    rows: list[dict[str, Any]] = _read("r1_distillation.json")["rows"]
    return rows


def r1_texts() -> list[dict[str, Any]]:
    """The texts that R1 was fine-tuned on, by domain: how many, and their mean tokens.

    Source: DeepSeek-R1 (arXiv 2501.12948 v2).
    """
    rows: list[dict[str, Any]] = _read("distillation_accusations.json")["r1_training_texts"]["rows"]
    return rows


def accusations() -> list[dict[str, Any]]:
    """What was said about models extracted through interfaces: date, by whom, about whom, source.

    These are allegations; no row was checked.
    """
    rows: list[dict[str, Any]] = _read("distillation_accusations.json")["rows"]
    return rows
