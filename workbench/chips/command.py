"""`python -m workbench chips …`: the catalog, predictions, the search and the validation from a shell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Chips and clusters: what they are, how fast V4 runs on them, and how far that can be trusted.",
)

DATA = Path(__file__).parents[1] / "data" / "chips"


@app.command("list")
def list_chips() -> None:
    """Print every chip of the catalog: memory, bandwidth, BF16 and 8-bit peaks, and how sure they are."""
    from workbench.chips.catalog import chips, load_chip
    from workbench.units import TFLOP, gb, gib

    print(f"{'chip':<24}{'GiB':>7}{'GB/s':>8}{'BF16':>8}{'8 bit':>8}  confidence")
    for key in chips():
        chip = load_chip(key)
        peaks = chip.peak_flop_per_s
        low = peaks.get("fp8") or peaks.get("int8")
        cells = (
            chip.memory_bytes and gib(chip.memory_bytes),
            chip.memory_byte_per_s and gb(chip.memory_byte_per_s),
            peaks.get("bf16") and peaks["bf16"] / TFLOP, low and low / TFLOP,
        )  # fmt: skip
        text = [f"{cell:.0f}" if cell else "?" for cell in cells]
        print(f"{key:<24}{text[0]:>7}{text[1]:>8}{text[2]:>8}{text[3]:>8}  {chip.confidence}")


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A preset, as deepseek-v4-pro.")],
    cluster: Annotated[str, typer.Argument(help="A cluster or a chip, as cloudmatrix384 or h800.")],
    chips: Annotated[
        int | None, typer.Option(min=1, help="How many chips. The system's size by default.")
    ] = None,
    phase: Annotated[str, typer.Option(help="decode or prefill.")] = "decode",
    batch: Annotated[float, typer.Option(help="Sequences of one attention group.")] = 16,
    context: Annotated[int, typer.Option(min=1, help="Tokens of context, or of the prompt.")] = 8192,
    drafts: Annotated[int, typer.Option(min=0, help="Drafts a step by the MTP block.")] = 0,
    accepted: Annotated[float, typer.Option(help="Tokens a step yields with them.")] = 1.0,
    precision: Annotated[
        str, typer.Option(help="A recipe, as int8; the release's by default.")
    ] = "as released",
    engine: Annotated[str, typer.Option(help="The software, as sglang or cann-950.")] = "graph",
    rows: Annotated[int, typer.Option(min=0, help="How many of the longest parts to print.")] = 12,
) -> None:
    """Print the time of one pass, its bounds, what limits it, and its longest parts."""
    from workbench.chips.clusters import load_cluster
    from workbench.chips.precision import precision as recipe
    from workbench.chips.predict import predict as predict_pass
    from workbench.chips.workload import Workload
    from workbench.config import load_config
    from workbench.units import MILLISECOND_S, gib

    workload = Workload(
        phase=phase, batch=batch, context_tokens=context, draft_tokens=drafts,  # type: ignore[arg-type]
        accepted_length=accepted if drafts else None,
    )  # fmt: skip
    system = load_cluster(cluster, chips=chips)
    found = predict_pass(
        load_config(model), system, workload, precision=recipe(precision), engine_name=engine
    )
    low, middle, high = (float(s) / MILLISECOND_S for s in found.step_s)
    print(f"step      {middle:.2f} ms (between {low:.2f} and {high:.2f})")
    if phase == "decode":
        print(f"TPOT      {float(found.tpot_s) / MILLISECOND_S:.2f} ms")
    print(f"rate      {float(found.tokens_per_s_per_chip):.0f} tokens/s/chip on {found.chips:g} chips")
    print(f"memory    {gib(float(found.used_bytes)):.1f} of {gib(found.memory_bytes):.1f} GiB")
    print(f"limit     {found.limiting}\n")
    for row in sorted(found.rows, key=lambda r: -float(r.time.expected))[:rows]:
        share = float(row.time.expected) / float(found.step_s.expected)
        print(f"  {row.name:<28}{row.layer_type:<32}{share:>6.1%}  {row.limit}")
    for note in found.notes:
        print(f"note: {note}")


@app.command()
def search(
    model: Annotated[str, typer.Argument(help="A preset, as deepseek-v4-pro.")],
    cluster: Annotated[str, typer.Argument(help="A cluster or a chip, as cloudmatrix384 or h800.")],
    chips: Annotated[
        int | None, typer.Option(min=1, help="How many chips. The system's size by default.")
    ] = None,
    context: Annotated[int, typer.Option(min=1, help="Tokens of context.")] = 8192,
    limit_ms: Annotated[float | None, typer.Option(help="Longest time per output token.")] = None,
    drafts: Annotated[int, typer.Option(min=0, help="Drafts a step by the MTP block.")] = 0,
    accepted: Annotated[float, typer.Option(help="Tokens a step yields with them.")] = 1.0,
    precision: Annotated[
        str, typer.Option(help="A recipe, as int8; the release's by default.")
    ] = "as released",
    engine: Annotated[str, typer.Option(help="The software, as sglang or cann-950.")] = "graph",
) -> None:
    """Print the Pareto front of layouts and batches for decoding."""
    from workbench.chips.clusters import load_cluster
    from workbench.chips.engines import engine as stack
    from workbench.chips.precision import precision as recipe
    from workbench.chips.search import explore, pareto
    from workbench.chips.workload import Workload
    from workbench.config import load_config
    from workbench.units import MILLISECOND_S

    workload = Workload(
        phase="decode",
        context_tokens=context,
        draft_tokens=drafts,
        accepted_length=accepted if drafts else None,
    )
    points = explore(
        load_config(model), load_cluster(cluster, chips=chips), workload, precision=recipe(precision),
        with_engine=stack(engine),
    )  # fmt: skip
    front = pareto(points, None if limit_ms is None else limit_ms * MILLISECOND_S)
    print(f"{'ms a token':>10} {'tokens/s/chip':>13} {'batch':>6}  layout")
    for point in front:
        m = point.mapping
        layout = f"DP{m.dp} TP{m.attention_tp} EP{m.ep}" + (f" TP{m.moe_tp} experts" if m.moe_tp > 1 else "")
        speed = f"{point.interval_s / MILLISECOND_S:>10.2f} {point.tokens_per_s_per_chip:>13.0f}"
        print(f"{speed} {point.batch:>6}  {layout}, {m.overlap}")


@app.command()
def validate(
    measurements: Annotated[Path | None, typer.Option(help="A table of published measurements.")] = None,
    kernels: Annotated[Path | None, typer.Option(help="A table of measured kernel times.")] = None,
    serving: Annotated[Path | None, typer.Option(help="A table of serving points.")] = None,
    output: Annotated[Path, typer.Option(help="Where the table of all rows goes.")] = Path(
        "build/validation.csv"
    ),
    leave_out: Annotated[
        bool,
        typer.Option(
            "--leave-out", help="Also predict each system by constants fitted without it (minutes)."
        ),
    ] = False,
) -> None:
    """Predict every row of up to three tables, write each beside its measurement, and print the errors.

    Without any option the package's own three tables are taken. A row that cannot be predicted says why.
    """
    from workbench.chips.validation import validate as validate_tables
    from workbench.chips.validation import write_table
    from workbench.chips.validation.judge import current_engines, summaries
    from workbench.chips.validation.leave_out import cases, left_out

    if measurements is None and kernels is None and serving is None:
        measurements, kernels, serving = (
            DATA / name for name in ("measurements.csv", "kernels_nvidia.csv", "silicon_deepseek.csv")
        )
    results = validate_tables(measurements, kernels, serving)
    _print_summaries("all rows", summaries(results))
    if leave_out and measurements is not None:
        found = left_out(cases(measurements, serving), current_engines())
        apart = [result for results in found.values() for result in results]
        _print_summaries("each system left out of the fit", summaries(apart))
        results = [*results, *apart]
    write_table(results, output)
    print(f"\n{output}: {len(results)} rows")


def _print_summaries(title: str, rows: list[Any]) -> None:
    names = f"{'median':>9}{'90th':>9}{'bias':>9}{'in bounds':>11}"
    print(f"\n{title}\n{'family':<14}{'rows':>6}{'left out':>10}{names}")
    for row in rows:
        if row.median is None:
            print(f"{row.family:<14}{row.predicted:>6}{row.excluded:>10}{'-':>9}{'-':>9}{'-':>9}{'-':>11}")
            continue
        inside = "-" if row.inside is None else f"{row.inside:.0%}"
        print(
            f"{row.family:<14}{row.predicted:>6}{row.excluded:>10}{row.median:>9.1%}{row.ninetieth:>9.1%}"
            f"{row.bias:>+9.1%}{inside:>11}"
        )
