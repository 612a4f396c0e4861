"""`textune predict`."""

from __future__ import annotations

import click

from textune.cli.options import scoring_flags
from textune.data.wording import counted


@click.command()
@click.argument("run")
@click.argument("input")
@click.option("--output", "-o", required=True, metavar="FILE", help="Where to write: .csv, .tsv, .jsonl or .parquet.")
@click.option("--text", metavar="TEXT", help="Column with the text; that of training when not given.")
@click.option("--text-pair", metavar="TEXT", help="Column with the second text; that of training when not given.")
@click.option("--delimiter", metavar="TEXT", help="What separates the fields of a CSV file; found by itself.")
@click.option(
    "--encoding",
    default="utf-8",
    show_default=True,
    metavar="TEXT",
    help="Encoding of a text file that is not UTF-8, such as cp949.",
)
@click.option("--drop-bad-rows", is_flag=True, help="Leave out rows that cannot be read, and count them.")
@click.option("--only-predictions", is_flag=True, help="Do not copy the input's columns to the output.")
@scoring_flags
@click.option("--calibrated", is_flag=True, help="Scores that say how often such a prediction is right.")
@click.option(
    "--threshold",
    metavar="TEXT",
    help="From which score on a label is given: f1, precision:0.9 or recall:0.95 as chosen on validation, or a score.",
)
@click.option("--excel", is_flag=True, help="Write a CSV or TSV file that Excel opens with all letters right.")
@click.option("--overwrite", is_flag=True, help="Replace the output if it is there.")
@click.option("--quiet", is_flag=True, help="Show errors and nothing else.")
def predict(
    run: str,
    input: str,
    output: str,
    text: str | None,
    text_pair: str | None,
    delimiter: str | None,
    encoding: str,
    drop_bad_rows: bool,
    only_predictions: bool,
    batch_size: int,
    device: str,
    precision: str,
    calibrated: bool,
    threshold: str | None,
    excel: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Label the texts of a file with a finished run.

    RUN is a run folder, a model folder or a hub model; INPUT a .csv, .tsv, .json, .jsonl or .parquet file of any size.
    Rows keep their order. The output has the input's columns, `prediction`, and the score of each label.

    \b
    textune predict runs/reviews new.csv -o labelled.csv
    """
    from textune.data.readers import existing_file
    from textune.display import Display, default_display
    from textune.environment import set_threads
    from textune.files import user_path
    from textune.serving.files import check_target, predict_file
    from textune.serving.predictor import Predictor

    source = existing_file(input, folder_hint="RUN comes first: textune predict RUN INPUT")
    target = user_path(output)
    check_target(target, overwrite=overwrite, for_excel=excel)
    display = Display() if quiet else default_display()
    set_threads()
    try:
        predictor = Predictor.load(
            run,
            batch_size=batch_size,
            device=device,
            precision=precision,
            calibrated=calibrated,
            threshold=threshold,
        )
        if precision != "fp32":
            display.note(f"arithmetic: {predictor.arithmetic.reason}")
        if calibrated:
            display.note(f"temperature: {predictor.decision.temperature:.3f}")
        decision = predictor.decision
        if decision.thresholds is not None:
            stored = decision.threshold_temperature is not None
            of = " of the scores before calibration" if calibrated and stored else ""
            display.note(f"threshold: {', '.join(f'{value:.3f}' for value in decision.thresholds)}{of}")
        with display.progress(f"predicting {source.name}", None) as advance:
            report = predict_file(
                predictor,
                source,
                target,
                text=text,
                text_pair=text_pair,
                delimiter=delimiter,
                encoding=encoding,
                drop_bad_rows=drop_bad_rows,
                input_columns=not only_predictions,
                for_excel=excel,
                overwrite=overwrite,
                on_progress=advance,
            )
        for note in report.notes:
            display.note(note)
        for reason, count in report.dropped.items():
            display.warning(f"{counted(count, 'row')} left out: {reason}")
        display.note(f"{counted(report.rows, 'row')} predicted: {target}")
    finally:
        display.close()
