"""aiconfigurator and genz-llm asked for times per output token, each in an environment of its own.

Their pins are not ours, so nothing of them is imported here. Either is looked for as bin/python under
build/peers/NAME, or under the folder that the variable PEERS names:

    python -m venv build/peers/aiconfigurator
    build/peers/aiconfigurator/bin/pip install aiconfigurator==0.12.0
    python -m venv build/peers/genz-llm
    build/peers/genz-llm/bin/pip install genz-llm==0.0.16

aiconfigurator looks kernels up that were measured on NVIDIA GPUs, the ones that this package's calibration
takes a part of; it is asked for the engine's own schedule ("agg"), or for decoding alone where prefill has
chips of its own. genz-llm is a roofline of bandwidth, peak and links, which it is given as our catalog has
them; it knows DeepSeek-V3 with grouped-query attention in place of the latent one, tensor and expert
parallel, and no prefill between the tokens.
"""

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = {"aiconfigurator": "aiconfigurator 0.12.0", "genz-llm": "genz-llm 0.0.16"}
_ASK = {
    "aiconfigurator": """
import logging
logging.disable(logging.CRITICAL)
from aiconfigurator.cli.api import cli_estimate
def ask(job):
    batch = max(round(job["users"] / job["dp"]), 1)
    drafts = {"nextn": job["drafts"], "nextn_accepted": job["accepted"] - 1} if job["drafts"] else {}
    found = cli_estimate(
        job["model"], system_name=job["system"], backend_name=job["backend"], isl=job["isl"], osl=job["osl"],
        mode="static_gen" if job["is_split"] else "agg", batch_size=batch, tp_size=job["tp"],
        attention_dp_size=job["dp"], moe_tp_size=job["moe_tp"], moe_ep_size=job["ep"], **drafts)
    return float(found.tpot)
""",
    "genz-llm": """
import warnings
warnings.simplefilter("ignore")
from GenZ import decode_moddeling
def ask(job):
    if "V3" not in job["model"] and "R1" not in job["model"]:
        raise ValueError("the model is not among its configurations")
    ranks = job["tp"] * job["dp"]
    tp = ranks // job["ep"]
    chip = dict(job["chip"], Memory_size=job["chip"]["Memory_size"] * ranks, real_values=True)
    found = decode_moddeling(
        model="deepseek-ai/DeepSeek-V3-Base", batch_size=max(round(job["users"]), 1), Bb=1,
        input_tokens=job["isl"], output_tokens=job["osl"], system_name=chip, bits=job["bits"],
        tensor_parallel=tp, expert_parallel=job["ep"],
        parallelism_heirarchy="TP{%d}_EP{%d}_PP{1}" % (tp, job["ep"]))
    return float(found["Latency"]) / job["accepted"]
""",
}
_LOOP = """
import json, sys, time
for job in json.load(sys.stdin):
    start = time.perf_counter()
    try:
        answer = [ask(job), "", time.perf_counter() - start]
    except Exception as error:
        answer = [None, f"{type(error).__name__}: {error}"[:120], 0.0]
    print("answer " + json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class Job:
    """A serving run of one instance, in the words that both peers understand.

    users: of the instance; is_split: prefill runs elsewhere; chip: what genz-llm is told (TFLOP/s, GB, GB/s).
    """

    model: str
    system: str
    backend: str
    isl: int
    osl: int
    users: float
    tp: int
    dp: int
    moe_tp: int
    ep: int
    is_split: bool
    drafts: int
    accepted: float
    bits: str
    chip: dict[str, float]


@dataclass(frozen=True)
class Answer:
    """Milliseconds a token, or why there are none; seconds that the peer took."""

    tpot_ms: float | None
    reason: str
    seconds: float


def interpreter(name: str) -> Path | None:
    """The Python of a peer's environment, if there is one."""
    folder = Path(os.environ.get("PEERS", ROOT / "build" / "peers"))
    found = folder / name / "bin" / "python"
    return found if found.is_file() else None


def ask(name: str, jobs: list[Job]) -> list[Answer] | None:
    """What a peer says to each job, in one process; None where it is not installed."""
    python = interpreter(name)
    if python is None:
        return None
    log = subprocess.run(
        [python, "-c", _ASK[name] + _LOOP], input=json.dumps([asdict(job) for job in jobs]),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line.removeprefix("answer ") for line in log.stdout.splitlines() if line.startswith("answer ")]
    return [Answer(*json.loads(line)) for line in lines]
