from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from textune.run import Run

from .conftest import Textune


def other_tool(run: Run, path: Path, *, wrong: int = 0) -> Path:
    """A file with the right labels as predictions, but for the first `wrong` rows."""
    table = run.predictions("validation").to_pylist()
    names = sorted({row["label"] for row in table})
    lines = ["id,label,prediction"]
    for number, row in enumerate(table):
        other = next(name for name in names if name != row["label"])
        lines.append(f"{row['id']},{row['label']},{other if number < wrong else row['label']}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_compare(textune: Textune, text_run: Run, tmp_path: Path) -> None:
    file = other_tool(text_run, tmp_path / "other.csv", wrong=2)
    best = other_tool(text_run, tmp_path / "best.csv")
    done = textune("compare", file, best, text_run.path)
    assert (done.code, done.err) == (0, "")
    assert "metric [95 % interval]" in done.out
    assert "difference to other.csv [95 % interval]" in done.out
    rows = text_run.predictions("validation").num_rows
    assert f"{rows:,} rows of validation\n" in done.out
    # 0.5, adjusted for two comparisons as the other p-values are.
    assert "McNemar: only other.csv is right on 0 rows, only best.csv on 2; p = 1 (exact)" in done.out
    assert "note: runs are compared on their validation split" in done.out
    assert "note: p-values are adjusted for 2 comparisons (Holm)" in done.out
    assert "note: one training each of other.csv, best.csv, text: another seed" in done.out
    assert "\nbest.csv is better than other.csv by " in done.out
    assert " points of accuracy (95 % interval " in done.out


def test_a_run_that_has_learned_nothing(textune: Textune, text_run: Run, tmp_path: Path) -> None:
    path = shutil.copytree(text_run.path, tmp_path / "bad", ignore=shutil.ignore_patterns("checkpoints", "model"))
    summary = json.loads((path / "summary.json").read_text())
    summary["selected"]["failed"] = "it says 'positive' of every row"
    (path / "summary.json").write_text(json.dumps(summary))
    note = "bad has learned nothing: on validation it says 'positive' of every row"
    assert f"note: {note}\n" in textune("compare", text_run.path, path).out
    assert note in json.loads(textune("compare", path, text_run.path, "--json").out)["notes"]


def test_json(textune: Textune, text_run: Run, tmp_path: Path) -> None:
    file = other_tool(text_run, tmp_path / "other.csv", wrong=2)
    done = textune("compare", text_run.path, file, "--json", "--metric", "f1", "--split", "validation")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["names"] == ["text", "other.csv"]
    assert next(iter(found["metrics"])) == "f1"
    values = found["metrics"]["accuracy"]["values"]
    assert values[0]["value"] == text_run.summary["validation"]["accuracy"]["value"]
    assert values[0]["interval"] == pytest.approx(text_run.summary["validation"]["accuracy"]["interval"])
    (difference,) = found["metrics"]["accuracy"]["differences"]
    assert difference["value"] == pytest.approx(values[1]["value"] - values[0]["value"])
    assert difference["sentence"].startswith("other.csv ")


def test_seeds(textune: Textune, text_run: Run, tmp_path: Path) -> None:
    files = [other_tool(text_run, tmp_path / f"{wrong}.csv", wrong=wrong) for wrong in (1, 2, 3)]
    done = textune("compare", f"three={','.join(map(str, files))}", f"text={text_run.path}")
    assert (done.code, done.err) == (0, "")
    assert "metric ± deviation over seeds" in done.out
    assert " of 3" in done.out
    assert "McNemar" not in done.out
    assert "note: one training each of text: another seed" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["one"], 2, "expected two or more runs or prediction files"),
        (["one", "--metric", "acuracy"], 2, "--metric: expected one of accuracy"),
        (["one", "none.csv"], 66, "none.csv"),
        (["one", "bad.csv"], 65, "expected the columns id, label, and prediction"),
    ],
)
def test_bad_input(
    textune: Textune, text_run: Run, in_empty_folder: Path, arguments: list[str], code: int, words: str
) -> None:
    Path("bad.csv").write_text("a,b\n1,2\n")
    if "--metric" in arguments:
        arguments = [*arguments, str(other_tool(text_run, Path("other.csv")))]
    done = textune("compare", text_run.path, *arguments[1:])
    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err
