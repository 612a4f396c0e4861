from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from textune.config import Config
from textune.config_reading import read_config
from textune.errors import CheckpointError, DataError, InputNotFoundError, OutputError
from textune.run import ENTRIES, Run, check_output, claim_free_path, output_path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_run(path: Path, *, seed: int = 42) -> Run:
    return Run.create(path, overwrite=False, config=read_config(settings={"training.seed": seed}))


def test_a_new_run_holds_its_configuration(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a" / "b", seed=7)
    assert [path.name for path in run.path.iterdir()] == ["config.yaml"]
    assert Run.open(str(run.path)).config.training.seed == 7
    assert repr(run) == f"Run({str(run.path)!r})"


@pytest.mark.parametrize("kind", [str, Path])
def test_a_run_is_made_of_its_folder(tmp_path: Path, kind: type) -> None:
    path = make_run(tmp_path / "run").path
    run = Run(kind(path))
    assert (run.path, run.model_path) == (path, path / "model")


def test_a_run_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Run.open("~/run").path == Run("~/run").path == tmp_path / "run"
    with pytest.raises(InputNotFoundError, match="There is no run folder '~there-is-nobody-of-this-name/run'"):
        Run.open("~there-is-nobody-of-this-name/run")


@pytest.mark.parametrize("home", ["~", "~there-is-nobody-of-this-name"])
def test_output_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = tmp_path / "run" if home == "~" else Path(home, "run")
    assert output_path(read_config(settings={"run.output": f"{home}/run"}), "data") == expected


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    assert make_run(tmp_path).path == tmp_path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert run.metrics == []
    with pytest.raises(InputNotFoundError, match=r"has not finished: it has no summary\.json") as caught:
        _ = run.summary
    assert f"`textune train --resume {run.path}`" in str(caught.value.hint)
    run.write("data.json", {"rows": 3})
    run.write("environment.json", {"torch": "2"})
    run.write("summary.json", {"validation": {}})
    run.log({"step": 1, "loss": 0.5})
    run.log({"step": 2, "text": "\u2028\n"})
    assert run.data == {"rows": 3}
    assert run.environment == {"torch": "2"}
    assert run.summary == {"validation": {}}
    assert run.metrics == [{"step": 1, "loss": 0.5}, {"step": 2, "text": "\u2028\n"}]


def test_a_log_line_that_is_not_json_is_not_written(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.log({"loss": float("inf")})
    assert run.metrics == []


def test_a_log_that_was_cut_off_keeps_its_whole_lines(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.log({"step": 1})
    with (run.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "lo')
    assert run.metrics == [{"step": 1}]


def test_a_damaged_log_names_the_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run.path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"Expected JSON in line 2 of '.*metrics\.jsonl'"):
        _ = run.metrics


def test_a_file_with_something_else_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run.path / "summary.json").write_text("[]", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"summary\.json: expected a JSON object, found a list"):
        _ = run.summary


def test_predictions_are_read_and_missing_ones_say_which_there_are(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(InputNotFoundError, match="there are no predictions for 'test'; there are: none"):
        run.predictions("test")
    run.predictions_path.mkdir()
    table = pa.table({"id": [1, 2], "prediction": ["a", "b"]})
    for split in ("validation", "extra"):
        pq.write_table(table, run.predictions_path / f"{split}.parquet")
    assert run.predictions("validation").equals(table)
    with pytest.raises(InputNotFoundError, match="no predictions for 'test'; there are: extra, validation"):
        run.predictions("test")


def test_opening_something_else_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match=r"There is no run folder '.*none'"):
        Run.open(tmp_path / "none")
    (tmp_path / "model").mkdir()
    with pytest.raises(CheckpointError, match=r"is not a run of textune: it has no config\.yaml") as caught:
        Run.open(tmp_path / "model")
    assert (
        caught.value.hint == "Name the folder that `textune train` printed, the one with config.yaml and model/ in it."
    )


def test_a_run_that_may_not_be_looked_at_is_named(tmp_path: Path) -> None:
    """A folder that may not be entered gives the same error as a name that is too long, which needs no other user."""
    with pytest.raises(InputNotFoundError, match=r"Cannot read '.*': File name too long"):
        Run.open(tmp_path / ("a" * 300))


def test_a_run_is_overwritten_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "run"
    first = make_run(path, seed=1)
    first.write("summary.json", {})
    first.model_path.mkdir()
    (first.model_path / "model.safetensors").touch()
    (path / ".model.tmp-12").mkdir()
    (path / ".model.old-12").mkdir()
    (path / ".summary.json.tmp-123").touch()
    before = tree(path)
    with pytest.raises(OutputError, match="already holds a run; nothing was touched") as caught:
        make_run(path)
    assert caught.value.hint is not None
    assert "--overwrite" in caught.value.hint
    assert tree(path) == before

    second = Run.create(path, overwrite=True, config=Config())
    assert second.config.training.seed == 42
    assert [entry.name for entry in path.iterdir()] == ["config.yaml"]


def test_killed_while_a_run_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each file in turn: what is left is no finished run, can be opened and be overwritten again."""
    unlink, left = os.unlink, 0

    def kill(path: str, **options: Any) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        unlink(path, **options)

    for removed in itertools.count():
        whole = make_run(tmp_path / f"run-{removed}")
        for run in (whole, make_run(whole.path / "seed-1"), make_run(whole.path / "all-rows")):
            run.write("summary.json", {})
            run.write("data.json", {})
            run.model_path.mkdir()
            (run.model_path / "model.safetensors").touch()
        left = removed
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", kill)
            try:
                Run.create(whole.path, overwrite=True, config=Config())
            except KeyboardInterrupt:
                pass
            else:
                break
        for run in (Run.open(whole.path), *whole.runs):
            whole_is_there = (run.model_path / "model.safetensors").exists() and (run.path / "data.json").exists()
            assert not run.is_finished or whole_is_there, removed
        assert Run.create(whole.path, overwrite=True, config=Config()).path == whole.path
        assert [entry.name for entry in whole.path.iterdir()] == ["config.yaml"]
    assert removed > 9, "each file was the last one removed"


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_that_is_no_run_is_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("ten years", encoding="utf-8")
    with pytest.raises(OutputError, match="is not empty and is not a run of textune; nothing was touched"):
        Run.create(tmp_path, overwrite=overwrite, config=Config())
    assert tree(tmp_path) == {"thesis.tex": b"ten years"}


@pytest.mark.parametrize("name", ["thesis.tex", ".git", "modelx", "model.tmp", ".config", "tmp"])
def test_a_folder_that_is_not_only_a_run_is_never_emptied(tmp_path: Path, name: str) -> None:
    """A project may well have a config.yaml of its own."""
    run = make_run(tmp_path / "run")
    (run.path / name).write_text("ten years", encoding="utf-8")
    before = tree(run.path)
    with pytest.raises(OutputError, match="nothing was touched") as caught:
        Run.create(run.path, overwrite=True, config=Config())
    assert f"holds a run and {name!r}, which is no part of one" in caught.value.message
    assert tree(run.path) == before


def test_the_head_of_the_module_names_every_entry() -> None:
    from textune import run as module

    assert module.__doc__ is not None
    told = " ".join(line[:23] for line in module.__doc__.splitlines()[2:]).replace(",", " ").split()
    assert {name.split("/")[0] for name in told} == ENTRIES


def test_a_linked_folder_is_emptied_and_stays_linked(tmp_path: Path) -> None:
    """Results are often kept on another disk through a link or a mount, which cannot be removed."""
    (tmp_path / "disk").mkdir()
    link = tmp_path / "run"
    link.symlink_to(tmp_path / "disk")
    make_run(link, seed=1).write("summary.json", {})
    Run.create(link, overwrite=True, config=Config())
    assert link.is_symlink()
    assert [entry.name for entry in (tmp_path / "disk").iterdir()] == ["config.yaml"]


def test_a_link_inside_a_run_is_removed_but_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "weights").touch()
    run = make_run(tmp_path / "run")
    run.model_path.symlink_to(tmp_path / "kept")
    Run.create(run.path, overwrite=True, config=Config())
    assert not run.model_path.is_symlink()
    assert (tmp_path / "kept" / "weights").exists()


def test_the_present_folder_can_be_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Run.create(Path(), overwrite=False, config=Config())
    assert (tmp_path / "config.yaml").is_file()


def test_a_file_is_no_output(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x", encoding="utf-8")
    for output in (path, path / "run", path / "a" / "b"):
        with pytest.raises(OutputError, match=r"--output: '.*file' is a file, expected a folder"):
            check_output(output, overwrite=True)
    assert path.read_text(encoding="utf-8") == "x"


def test_an_output_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(OutputError, match="--output: no permission to write in ") as caught:
        check_output(tmp_path / "a" / "b", overwrite=False)
    assert repr(str(tmp_path)) in caught.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may look everywhere")
def test_an_output_in_a_folder_that_may_not_be_entered_is_refused(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    with pytest.raises(OutputError, match="Permission denied"):
        check_output(locked / "run", overwrite=False)


def test_a_name_beyond_what_the_system_allows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="File name too long"):
        check_output(tmp_path / ("a" * 300), overwrite=False)


def test_checking_an_output_makes_nothing(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_the_default_output_has_the_next_free_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/glue-mrpc-bert-base-2").mkdir(parents=True)
    claimed = [claim_free_path("glue/mrpc", "bert-base") for _ in range(2)]
    assert claimed == [Path("runs/glue-mrpc-bert-base-1"), Path("runs/glue-mrpc-bert-base-3")]
    assert all(path.is_dir() for path in claimed), "of two that begin at once each has its own"
    assert claim_free_path("../My Data.csv", "..") == Path("runs/my-data.csv-1")


def test_the_default_output_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").write_text("mine")
    with pytest.raises(OutputError, match=r"Cannot write 'runs"):
        claim_free_path("reviews", "starter")
