"""What the folds of a cross-validation say together: every row, as predicted by the model that has not seen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from textune.data.delimited import csv_line, read_header, read_rows, rows_of_width
from textune.data.folds import deal_folds
from textune.data.lines import BadRows
from textune.data.prepare import PreparedData
from textune.data.rows import labels_of
from textune.data.tokenize import tokenize_split
from textune.errors import CheckpointError
from textune.evaluation.baseline import judged_by, why_folds_failed
from textune.evaluation.label_errors import LabelErrors, label_errors
from textune.evaluation.metrics import METRICS, outcome_of
from textune.evaluation.predictions import FloatArray, LabelSet, logits_of_table, to_scores
from textune.evaluation.scoring import score, with_uncertainty
from textune.evaluation.stored_calibration import Calibration
from textune.files import read_json, write_text
from textune.models.tokenizer import load_tokenizer
from textune.problem_types import SINGLE_LABEL
from textune.repeats.members import Member
from textune.repeats.together import copy_model, spread
from textune.results import analyse_split
from textune.run import LABEL_ERRORS, Run
from textune.summary import metric_values, scored_splits

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from textune.config import Config

OUT_OF_FOLD = "out_of_fold"


def write_folds(whole: Run, members: Sequence[Member], prepared: PreparedData) -> None:
    """Writes pooled predictions, what is wrong with them, the model of all rows and, last, summary.json.

    Labels are called into doubt only where no fold has failed: a model that has learned nothing has no opinion.

    Args:
        members: the folds, and last the run on all rows; all have finished.
        prepared: the data as they are read, without folds.
    """
    *folds, last = (Run(whole.path / member.name) for member in members)
    fold_of_row = folds_of(prepared, whole.config)
    rows = prepared.rows[prepared.train]
    labels = labels_of(rows)
    assert labels is not None, "the training split is labelled"
    label_set = LabelSet.of_schema(prepared.schema)
    table = _pooled(folds, fold_of_row, rows)
    logits = logits_of_table(table, label_set)

    parts = [fold.summary["validation"] for fold in folds]
    metric = folds[0].summary["selected"]["metric"]
    figures = _figures(parts, logits, labels, label_set)
    judge = judged_by(metric, list(metric_values(figures)))
    reasons = why_folds_failed(outcome_of(logits, labels, label_set), fold_of_row, judge, label_set.names)
    failed = dict(zip((fold.path.name for fold in folds), reasons, strict=True))
    note = _note([name for name, reason in failed.items() if reason], len(folds))
    summary: dict[str, Any] = {
        "kind": "folds",
        "selected": {
            **last.summary["selected"],
            "run": last.path.name,
            "split": OUT_OF_FOLD,
            "metric": metric,
            "note": note,
        },
        "runs": [
            {"name": name, "failed": reason, OUT_OF_FOLD: metric_values(part) | {"num_rows": part["num_rows"]}}
            for (name, reason), part in zip(failed.items(), parts, strict=True)
        ],
        OUT_OF_FOLD: figures,
    }
    whole.write_predictions(OUT_OF_FOLD, table)
    length = last.config.tokens.max_length
    assert length is not None, "resolved when the rows were tokenised"
    tokens = tokenize_split(rows, load_tokenizer(last.model_path), max_length=length)
    analysis = analyse_split(prepared, prepared.train, logits, labels, tokens=tokens, label_set=label_set)
    whole.write("analysis.json", {OUT_OF_FOLD: analysis, **_analysis_of(last)})
    if label_set.problem_type == SINGLE_LABEL and not any(failed.values()):
        found = label_errors(labels, to_scores(logits, SINGLE_LABEL))
        write_text(whole.path / LABEL_ERRORS, label_errors_csv(found, rows, labels, label_set))
        summary["label_errors"] = {"suspects": len(found.rows), "estimated_share": found.estimated_share}
    copy_model(last, whole, title="Cross-validation", text=_card_text(note, figures))
    calibration = Calibration.fit(logits, labels, label_set, split=OUT_OF_FOLD)
    if calibration is not None:
        calibration.add_to(figures, logits, labels, label_set)
        calibration.save(whole.model_path)
    for split in scored_splits(last.summary):
        predictions, of_split = last.predictions(split), labels_of(prepared.rows[split])
        whole.write_predictions(split, predictions)
        summary[split] = last.summary[split]
        if calibration is not None:
            assert of_split is not None, "it was scored"
            calibration.add_to(summary[split], logits_of_table(predictions, label_set), of_split, label_set)
    seconds = sum(run.summary["training"]["seconds_in_all"] for run in (*folds, last))
    summary["training"] = {**last.summary["training"], "seconds_in_all": round(seconds, 3)}
    whole.write("data.json", last.data)
    whole.write("summary.json", summary)


def _analysis_of(run: Run) -> dict[str, Any]:
    """What a run's analysis.json holds; nothing where somebody has removed it, since it holds texts."""
    file = run.path / "analysis.json"
    found: dict[str, Any] = read_json(file) if file.exists() else {}
    return found


def _figures(
    parts: Sequence[Mapping[str, Any]], logits: FloatArray, labels: npt.NDArray[Any], label_set: LabelSet
) -> dict[str, Any]:
    """Of all rows together, with the values of the folds (`parts`) and their deviation."""
    names = [name for name in metric_values(parts[0]) if name in METRICS]
    scores = score(logits, labels, label_set, metric_names=names)
    figures = with_uncertainty(scores, logits, labels, label_set).as_json()
    for name in metric_values(figures):
        of_folds = spread([metric_values(part)[name] for part in parts])
        figures[name] |= {key: of_folds[key] for key in ("deviation", "values")}
    return figures


def _note(failed: Sequence[str], num_folds: int) -> str:
    note = (
        f"the model was trained on all rows; the figures of {OUT_OF_FOLD} are those of {num_folds} models, each on the "
        f"rows that it had not seen. They trained on {num_folds - 1} of {num_folds} parts of the rows, so that the "
        "model on all of them is likely to be no worse. Nothing was chosen by these rows."
    )
    if failed:
        note += f" {', '.join(failed)} failed, and so may the model on all rows have: look at what it predicts."
    return note


def folds_of(prepared: PreparedData, config: Config) -> npt.NDArray[np.int64]:
    """The fold of each training row, as `prepare_training` deals them out for the run of each fold.

    Args:
        config: of the whole, settled.

    Raises:
        DataError: there are too few rows.
    """
    data, kind = config.data, prepared.schema.problem_type
    assert data.folds is not None and data.split_seed is not None, "the configuration is settled"
    rows = prepared.rows[prepared.train]
    return deal_folds(rows, num_folds=data.folds, seed=data.split_seed, problem_type=kind)[0]


def read_label_errors(whole: Run, *, limit: int) -> list[dict[str, str]]:
    """The most suspicious rows of label_errors.csv; none where there is no such file."""
    path = whole.path / LABEL_ERRORS
    if not path.exists():
        return []
    bad = BadRows(path)
    rows = read_rows(path, delimiter=",", quotes=True, bad=bad)
    names = read_header(rows, bad)
    return [dict(zip(names, fields, strict=True)) for _, fields in islice(rows_of_width(rows, names, bad), limit)]


def _pooled(folds: Sequence[Run], fold_of_row: npt.NDArray[np.int64], rows: Dataset) -> pa.Table:
    """The predictions of all rows, in the order of the rows.

    Raises:
        CheckpointError: a fold's rows are not those that lie in it now.
    """
    import pyarrow as pa

    table = pa.concat_tables([run.predictions("validation") for run in folds]).combine_chunks()
    order = np.argsort(np.argsort(fold_of_row, kind="stable"), kind="stable")
    table = table.take(order) if len(order) == len(table) else table
    if table["id"].to_pylist() != rows["id"][:]:
        raise CheckpointError(
            f"{folds[0].path.parent}: the data have changed since its folds were trained, so that they do not fit "
            "together.",
            hint="Bring the data back, or train anew.",
        )
    return table


def label_errors_csv(found: LabelErrors, rows: Dataset, labels: npt.NDArray[Any], label_set: LabelSet) -> str:
    """The suspects as label_errors.csv holds them, the most suspicious first."""
    texts = [name for name in ("text", "text_pair") if name in rows.column_names]
    lines = [csv_line(["row", "id", "label", "suggested", "margin", *texts])]
    suspects = rows.select(found.rows)
    for place, row, suggested in zip(found.rows.tolist(), suspects, found.suggested.tolist(), strict=True):
        names = label_set.names[int(labels[place])], label_set.names[suggested]
        margin = f"{found.margins[place]:.4f}"
        lines.append(csv_line([row["row"] + 1, row["id"], *names, margin, *(row[name] for name in texts)]))
    return "".join(lines)


def _card_text(note: str, figures: dict[str, Any]) -> str:
    lines = [
        f"- {name}: {entry['value']:.4f}"
        + (f" (95 % interval {entry['interval'][0]:.4f} to {entry['interval'][1]:.4f})" if entry["interval"] else "")
        for name, entry in figures.items()
        if isinstance(entry, dict) and entry.get("value") is not None
    ]
    return "\n".join([f"{note[0].upper()}{note[1:]}", "", *lines])
