"""The runner on small series of its own: kernels are real, so runs are shared where they can be."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from workbench import report
from workbench.runner import results
from workbench.runner.execution import Execution, Outcome
from workbench.runner.jobs import plan

PARAMETERS = 'profile = "smoke"\nseed = 0\nn_steps = 3\nformat = "fp8"'
START = "from workbench import nb\nrun = nb.start(profile, seed)"
FIGURE = (
    "import plotly.graph_objects as go\nnb.save_figure(go.Figure(layout_title_text=str(n_steps)), '00_a')"
)
# Claims are looked up in the ledger, not named, so that its entries may change.
CLAIMS = """\
from workbench.report import load_claims
known = next(c for c in load_claims().values() if c.kind == "exact" and len(c.targets) == 1)
unreached = next(c for c in load_claims().values() if c.kind == "out of reach")
nb.claims_table([
    nb.claim(known.id, ours=known.targets[0].printed, how="copied"),
    nb.claim(unreached.id, ours=None, how="needs the weights"),
])"""
READS_CLAIMS = """\
import json
for row in json.loads(run.results_path.read_text())["claims"]:
    print("seen", row["notebook"], row["verdict"])"""
# Says who it is, then waits longer than any test.
SLEEPER = "import os, pathlib, time\npathlib.Path('../pid').write_text(str(os.getpid()))\ntime.sleep(600)"


def write_notebook(root: Path, name: str, *cells: str, budget_s: float = 60, **settings) -> Path:
    parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    code = [new_code_cell(cell) for cell in cells]
    notebook = new_notebook(cells=[new_markdown_cell(f"# About {name}"), parameters, *code])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["workbench"] = {"budget_s": {"smoke": budget_s, "full": budget_s}, **settings}
    path = root / "notebooks" / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def make_project(root: Path) -> Path:
    (root / "environment.yml").touch()
    for name in ("figures", "notebooks"):
        (root / name).mkdir()
    return root


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "workbench", "run", *arguments]


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments), cwd=root, capture_output=True, text=True, timeout=120)


def wait_for(condition, seconds: float = 30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def build_files(root: Path) -> set[str]:
    build = root / "build"
    return {str(path.relative_to(build)) for path in build.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """One run of a series in which all goes wrong that can, beside one good notebook."""
    root = make_project(tmp_path_factory.mktemp("mixed"))
    write_notebook(root, "00_good", START, FIGURE, CLAIMS)
    write_notebook(
        root, "01_failing", "ratio = 3", "print(ratio)\nratio / (n_steps - 3)", "print('never reached')"
    )
    write_notebook(root, "02_slow", "import time", "time.sleep(600)  # the long part", budget_s=8)
    write_notebook(root, "03_crashing", "import os", "os.abort()")
    write_notebook(root, "20_last", START, READS_CLAIMS, last=True)
    return root, run(root)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A series that passes, run in the full profile, so that its claims are committed."""
    root = make_project(tmp_path_factory.mktemp("good"))
    write_notebook(root, "00_good", START, FIGURE, CLAIMS)
    return root, run(root, "--profile", "full")


def test_every_notebook_ends_with_its_status_and_the_run_with_one(mixed):
    _, done = mixed
    assert done.returncode == 1
    summary = done.stdout.split("\n\n")[-2]
    assert [line.split("  ")[0] for line in summary.splitlines()] == [
        "passed", "FAILED", "OVER BUDGET", "FAILED", "passed"
    ]  # fmt: skip
    assert "2 claims: 1 matches, 1 not testable here" in summary
    assert "Traceback" not in done.stderr


def test_a_failing_cell_is_shown_with_its_error_and_where_to_open_it(mixed):
    _, done = mixed
    assert "cell In [4]:\n        print(ratio)\n        ratio / (n_steps - 3)\n" in done.stdout
    assert "ZeroDivisionError: division by zero" in done.stdout
    assert "jupyter lab build/notebooks/01_failing.ipynb" in done.stdout
    assert "never reached" not in done.stdout


def test_a_notebook_over_its_budget_is_stopped_and_told_what_to_do(mixed):
    root, done = mixed
    assert (
        "over its budget of 8 s (smoke profile) and stopped in code cell 4 ('time.sleep(600)" in done.stdout
    )
    assert "raise workbench.budget_s.smoke" in done.stdout
    assert (root / "build/notebooks/02_slow.ipynb").is_file()


def test_a_kernel_that_dies_is_not_waited_for(mixed):
    _, done = mixed
    assert "the kernel died in code cell 4 ('os.abort()')" in done.stdout


def test_the_last_notebook_sees_the_claims_of_the_others(mixed):
    root, _ = mixed
    cells = nbformat.read(root / "build/notebooks/20_last.ipynb", as_version=4).cells
    assert cells[-1].outputs[0].text == "seen 00_good matches\nseen 00_good not testable here\n"


def test_claims_and_card_come_from_the_executed_notebooks(mixed):
    root, done = mixed
    written = json.loads((root / "build/claims.json").read_text())
    assert (written["profile"], written["seed"]) == ("smoke", 0)
    assert [(row["notebook"], row["verdict"]) for row in written["claims"]] == [
        ("00_good", "matches"),
        ("00_good", "not testable here"),
    ]
    assert f"report card  1 matches, 1 not testable here, {len(report.load_claims()) - 2} open" in done.stdout
    assert not (root / "figures/claims.json").exists()


def test_the_build_folder_holds_the_results_and_nothing_else(mixed):
    root, _ = mixed
    names = ["00_good", "01_failing", "02_slow", "03_crashing", "20_last"]
    pages = {f"notebooks/{name}.{end}" for name in names for end in ("html", "ipynb")}
    results_of_run = {
        "index.html",
        "report_card.html",
        "claims.json",
        "figures/00_a.json",
        "assets/plotly.min.js",
    }
    assert build_files(root) == pages | results_of_run


def test_pages_need_no_network_for_figures_and_lead_to_each_other(mixed):
    root, _ = mixed
    page = (root / "build/notebooks/00_good.html").read_text()
    assert '<script src="../assets/plotly.min.js">' in page
    assert '"title": {"text": "3"}' in page
    assert not re.search(r'src="https?:', page)
    index = (root / "build/index.html").read_text()
    assert "About 01_failing" in index
    assert "ZeroDivisionError" in index
    assert 'href="notebooks/00_good.html"' in index


def test_a_complete_full_run_commits_its_claims_and_figures(good):
    root, done = good
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((root / "figures/claims.json").read_text())["profile"] == "full"
    assert (root / "figures/00_a.json").is_file()


def test_a_run_that_changes_nothing_leaves_the_files_unchanged(good):
    root, _ = good
    committed = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (root / "figures").iterdir()}
    again = run(root, "--profile", "full")
    assert again.returncode == 0
    assert {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (root / "figures").iterdir()
    } == committed


def test_a_full_run_of_some_notebooks_leaves_the_committed_claims_of_the_others(good):
    root, _ = good
    path = root / "figures/claims.json"
    whole = path.read_text()
    row = json.loads(whole)["claims"][0]
    others = [row | {"notebook": name, "verdict": "differs"} for name in ("00_good", "01_other", "02_gone")]
    write_notebook(root, "01_other", START)
    try:
        path.write_text(json.dumps({"profile": "full", "seed": 0, "claims": others}))
        assert run(root, "--profile", "full", "--notebooks", "00", "--seed", "1").returncode == 0
        assert json.loads(path.read_text())["claims"] == others  # one file never mixes seeds
        assert run(root, "--profile", "full", "--notebooks", "00").returncode == 0
        found = json.loads(path.read_text())["claims"]
    finally:
        path.write_text(whole)
        (root / "notebooks/01_other.ipynb").unlink()
    assert [row["notebook"] for row in found] == ["00_good", "00_good", "01_other"]
    assert found[:2] == json.loads(whole)["claims"] and found[2]["verdict"] == "differs"


def test_a_smoke_run_fails_where_a_verdict_differs_from_the_committed_one(good):
    root, _ = good
    path = root / "figures/claims.json"
    committed = path.read_text()
    path.write_text(committed.replace('"matches"', '"differs"'))
    try:
        done = run(root)
    finally:
        path.write_text(committed)
    assert done.returncode == 1
    assert "VERDICTS DIFFER" in done.stdout
    assert "in 00_good: was 'differs'" in done.stdout
    assert "is 'matches'" in done.stdout


def test_an_overridden_parameter_reaches_the_notebook_and_commits_nothing(good):
    root, _ = good
    committed = (root / "figures/claims.json").read_bytes()
    done = run(root, "-p", "n_steps=7", "--notebooks", "00", "--output", "other")
    assert done.returncode == 0, done.stdout
    assert json.loads((root / "other/figures/00_a.json").read_text())["layout"]["title"]["text"] == "7"
    assert (root / "figures/claims.json").read_bytes() == committed


def interrupted(root: Path, signum: int, meanwhile=lambda: None) -> subprocess.CompletedProcess:
    """A run of a quick and an endless notebook, sent a signal when the quick one has ended."""
    write_notebook(root, "00_quick", "1")
    write_notebook(root, "02_slow", SLEEPER)
    with subprocess.Popen(
        command(), cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: (root / "pid").exists() and "notebooks/00_quick.html" in build_files(root))
        meanwhile()
        process.send_signal(signum)
        out, errors = process.communicate(timeout=30)
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_no_kernel_and_no_halves(tmp_path, signum, code):
    root = make_project(tmp_path)
    done = interrupted(root, signum)
    assert done.returncode == code
    assert "interrupted: every kernel is stopped, and only finished notebooks are kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert not psutil.pid_exists(int((root / "pid").read_text()))
    assert build_files(root) == {"notebooks/00_quick.html", "notebooks/00_quick.ipynb"}
    assert not list((root / "build").glob(".run-*"))


def test_a_run_beside_another_one_keeps_its_results(tmp_path):
    root = make_project(tmp_path)
    runs = []
    done = interrupted(root, signal.SIGINT, meanwhile=lambda: runs.append(run(root, "--notebooks", "00")))
    assert (done.returncode, runs[0].returncode) == (130, 0), runs[0].stdout + runs[0].stderr
    assert build_files(root) == {
        "notebooks/00_quick.html", "notebooks/00_quick.ipynb",
        "index.html", "report_card.html", "claims.json", "assets/plotly.min.js",
    }  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are not checked on this system")
def test_a_kernel_does_not_outlive_a_runner_that_was_killed(tmp_path):
    root = make_project(tmp_path)
    write_notebook(root, "02_slow", SLEEPER)
    with subprocess.Popen(command(), cwd=root, stdout=subprocess.DEVNULL) as process:
        wait_for((root / "pid").exists)
        process.kill()
    wait_for(lambda: not psutil.pid_exists(int((root / "pid").read_text())))


@pytest.fixture
def project(tmp_path) -> Path:
    root = make_project(tmp_path)
    write_notebook(root, "06_formats", "1")
    write_notebook(root, "07_quantising", "1", last=True)
    return root


def test_notebooks_are_found_by_name_number_and_path(project):
    for wanted in ("06", "06_formats", "notebooks/06_formats.ipynb"):
        assert [job.name for job in plan(project, "smoke", 0, [wanted])] == ["06_formats"]
    assert [job.name for job in plan(project, "smoke", 0, ["07", "06", "07"])] == [
        "06_formats",
        "07_quantising",
    ]
    assert [(job.comes_last, job.title) for job in plan(project, "smoke", 0)] == [
        (False, "About 06_formats"),
        (True, "About 07_quantising"),
    ]


def test_parameters_are_read_as_the_notebook_has_them(project):
    (job,) = plan(project, "full", 5, ["06"], {"n_steps": "12", "format": "mxfp4"})
    assert job.parameters == {"profile": "full", "seed": 5, "n_steps": 12, "format": "mxfp4"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ful", 0), "run: profile 'ful' is unknown; choose one of ['full', 'smoke']"),
        (("smoke", 0, ["99"]), "no notebooks are called '99'; choose one of 06_formats, 07_quantising"),
        (("smoke", 0, ["06_format"]), "did you mean 06_formats"),
        (("smoke", 0, [], {"n_step": "1"}), "'n_step' is unknown to 06_formats.ipynb; did you mean n_steps"),
        (("smoke", 0, [], {"n_steps": "many"}), "n_steps is 'many' (str); 06_formats.ipynb has 3 there"),
    ],
)
def test_bad_requests_are_refused_before_anything_starts(project, arguments, message):
    with pytest.raises(ValueError, match=r"^run: ") as caught:
        plan(project, *arguments)
    assert message in str(caught.value)


def test_a_notebook_must_be_readable_and_declare_its_budget(project):
    path = project / "notebooks" / "06_formats.ipynb"
    notebook = nbformat.read(path, as_version=4)
    del notebook.metadata["workbench"]["budget_s"]["full"]
    nbformat.write(notebook, path)
    with pytest.raises(ValueError, match=r"06_formats\.ipynb declares budget_s None for profile full"):
        plan(project, "full", 0)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"cannot read 06_formats\.ipynb"):
        plan(project, "full", 0)


def test_a_project_without_notebooks_says_so(tmp_path):
    with pytest.raises(ValueError, match="holds no notebook"):
        plan(make_project(tmp_path), "smoke", 0)


def test_a_kernel_that_cannot_start_says_why(project, tmp_path, monkeypatch):
    (tmp_path / "ipykernel_launcher.py").write_text("raise RuntimeError('the disk is made of cheese')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (job,) = plan(project, "smoke", 0, ["06"])
    outcome = Execution(job, tmp_path / "run", threads=None).run()
    assert outcome.status == "failed"
    assert "before its first cell" in outcome.failure
    assert outcome.failure.endswith("RuntimeError: the disk is made of cheese")


@pytest.fixture
def outcome(project):
    """An outcome of notebook 06 with the given (id, verdict) pairs."""
    (job,) = plan(project, "smoke", 0, ["06"])

    def build(*claims: tuple[str, str], status="passed") -> Outcome:
        rows = [{"id": name, "verdict": verdict, "ours": "1"} for name, verdict in claims]
        return Outcome(job, status, 1.0, 0, project / "copy.ipynb", rows)

    return build


def claim_of(kind: str) -> str:
    return next(claim.id for claim in report.load_claims().values() if claim.kind == kind)


def test_verdicts_are_compared_where_the_profile_does_not_matter(outcome):
    exact, scaled = claim_of("exact"), claim_of("scaled")

    def changes(before, after, **options):
        rows = [{"id": i, "notebook": "06_formats", "verdict": v, "ours": "2"} for i, v in before]
        return results.changed_verdicts(rows, [outcome(*after, **options)])

    was = [(exact, "matches")]
    assert changes(was, was) == []
    assert changes(was, [(exact, "differs")]) == [
        f"{exact} in 06_formats: was 'matches' (ours 2), is 'differs' (ours 1)"
    ]
    assert changes(was, []) == [f"{exact} in 06_formats: was 'matches', is no longer reported"]
    assert changes(was, [], status="failed") == []
    assert changes([], was) == []
    assert changes([(scaled, "trend holds")], [(scaled, "trend fails")]) == []


def test_a_claims_file_reads_back_and_a_wrong_one_is_refused(outcome, tmp_path):
    path = tmp_path / "claims.json"
    results.write_claims(path, "smoke", 0, [outcome((claim_of("exact"), "matches"))])
    assert [(row["notebook"], row["verdict"]) for row in results.read_claims(path)] == [
        ("06_formats", "matches")
    ]
    path.write_text("[]")
    with pytest.raises(ValueError, match="is not a claims file"):
        results.read_claims(path)
