"""The published table of R1's students, to stand beside ours."""

import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parents[1] / "data" / "r1_distillation.json"


def r1_students() -> list[dict[str, Any]]:
    """One row a model: how it learnt, and its pass@1 in per cent on each benchmark (Codeforces a rating).

    Source: DeepSeek-R1 (arXiv 2501.12948), tables 5 and 6.
    """
    rows: list[dict[str, Any]] = json.loads(_FILE.read_text(encoding="utf-8"))["rows"]
    return rows
