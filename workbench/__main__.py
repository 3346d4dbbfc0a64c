"""The command line: `python -m workbench`, or `workbench` where the package is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from workbench import report
from workbench.chips.command import app as chips_app
from workbench.files import project_root

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The V4 Workbench: DeepSeek-V4 rebuilt small, counted exactly, and held against its report.",
)

app.add_typer(chips_app, name="chips")

OutputOption = Annotated[Path, typer.Option(help="The folder for what a run makes.")]


@app.command()
def run(
    profile: Annotated[
        str, typer.Option(help="smoke: a minute a notebook on a CPU. full: the numbers that the texts quote.")
    ] = "smoke",
    notebooks: Annotated[str, typer.Option(help='Names or numbers, as in "06 07". All by default.')] = "",
    seed: Annotated[int, typer.Option(min=0, help="Where the random numbers start.")] = 0,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Notebooks at a time. The cores by default.")
    ] = None,
    output: OutputOption = Path("build"),
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", metavar="NAME=VALUE", help="A notebook parameter; may be repeated."),
    ] = None,
) -> None:
    """Execute the notebooks, write their pages, and print the report card's totals.

    Ends with 0 if every notebook passed and no verdict changed, with 1 if not, with 2 on bad input.
    """
    overrides = {}
    for pair in parameter or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"run: parameter {pair!r} has no name or no value; write -p name=value")
        overrides[name.strip()] = value.strip()
    root = project_root()
    from workbench.runner import Interrupted
    from workbench.runner import run as run_notebooks

    try:
        is_good = run_notebooks(root, profile, seed, notebooks.split(), overrides, jobs, output)
    except Interrupted as stop:
        print("\ninterrupted: every kernel is stopped, and only finished notebooks are kept", file=sys.stderr)
        raise typer.Exit(128 + stop.signum) from None
    raise typer.Exit(0 if is_good else 1)


@app.command()
def card(output: OutputOption = Path("build")) -> None:
    """Print the report card's totals, and write its page, from the last run or the committed results."""
    root = project_root()
    from workbench.runner.results import tally

    latest, committed = root / output / "claims.json", root / "figures" / "claims.json"
    source = latest if latest.is_file() else committed
    if not source.is_file():
        raise ValueError(f"card: neither {latest} nor {committed} exists; run make run")
    rows = report.card(source)
    page = root / output / "report_card.html"
    report.write_page(rows, page)
    print(f"{tally(row.verdict for row in rows)}\nfrom {source}\npage {page}")


@app.command()
def figures() -> None:
    """Draw figures/*.json as PNG beside them; needs a Chrome or Chromium."""
    folder = project_root() / "figures"
    from workbench.plots.render import render_figures

    for picture in render_figures(folder):
        print(picture)


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="A folder with config.json and safetensors files.")],
) -> None:
    """List what a checkpoint folder holds and lacks, from the headers of its files alone.

    Ends with 0 if the tensors are those of its configuration, with 1 if not.
    """
    from workbench.model.checkpoint import format_inspection
    from workbench.model.checkpoint import inspect as inspect_folder

    found = inspect_folder(folder)
    print(format_inspection(found))
    raise typer.Exit(1 if found.faults else 0)


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="Where the run lives. A run begun there goes on.")],
    model: Annotated[str, typer.Option(help="A preset, as mini, or a config.json.")] = "mini",
    texts: Annotated[
        Path | None, typer.Option(help="A folder of .txt and .md files. What comes with Python by default.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimisers.")] = 400,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a step.")] = 16,
    row_tokens: Annotated[int, typer.Option(min=8, help="Tokens of a row.")] = 256,
    micro_rows: Annotated[int, typer.Option(min=1, help="Rows of one forward pass.")] = 8,
    rate: Annotated[float, typer.Option(help="The learning rate's plateau.")] = 8e-3,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    seed: Annotated[int, typer.Option(min=0, help="Of weights and of the rows' order.")] = 0,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 50,
    device: Annotated[str, typer.Option(help="cpu, cuda or npu.")] = "cpu",
    n_context: Annotated[int, typer.Option(min=1, help="Processes that share a row's tokens.")] = 1,
    n_expert: Annotated[int, typer.Option(min=1, help="Processes that hold the experts together.")] = 1,
) -> None:
    """Train a V4 on text, and leave a model folder that transformers loads.

    Killed at any point and started again with the same words, it goes on to the same numbers. On several
    processes: torchrun --nproc-per-node N -m workbench train FOLDER ...
    """
    from workbench.config import ModelConfig, load_config
    from workbench.training.text_run import TextRun, run_on_text

    if precision not in ("fp32", "bf16"):
        raise ValueError(f"train: precision {precision!r} is unknown; choose fp32 or bf16")
    config = ModelConfig.from_json(model) if model.endswith(".json") else load_config(model)
    run = TextRun(
        steps, rows, row_tokens, micro_rows, rate, precision, seed, checkpoint_every  # type: ignore[arg-type]
    )  # fmt: skip
    run_on_text(config, run, folder, texts=texts, device=device, n_context=n_context, n_expert=n_expert)


def main() -> None:
    """Run the command line; bad input ends in one line and exit code 2."""
    try:
        app()
    except ValueError as error:
        print(f"workbench {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
