"""`--data`, whatever it names, as typed splits on disk: the bundled sample, a GLUE task, files, folders, the hub."""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textune.data.arrow_files import hash_splits
from textune.data.conversion import Files, convert, require_same_columns
from textune.data.encodings import UTF_8, check_encoding
from textune.data.folders import canonical_split, split_files
from textune.data.glue import GLUE_TASKS, HUB_REPOSITORY, GlueTask, official_files, task_of_folder
from textune.data.hub import HubName, load_from_hub, parse_hub_name
from textune.data.readers import existing_file, is_data_file, read_batches, stem_of
from textune.data.wording import listed
from textune.errors import ConfigError, DataError, InputNotFoundError, TextuneError, did_you_mean
from textune.files import user_path

if TYPE_CHECKING:
    from datasets import DatasetDict


# As in MRPC, so that "f1" is that of the equivalent pairs.
SAMPLE_LABELS = ("not_equivalent", "equivalent")


@dataclass(frozen=True)
class Source:
    """Data as it was read: raw columns, nothing interpreted yet."""

    name: str
    """Short, fit for a folder name: "mrpc", "reviews"."""
    location: str
    """What was read, for people: a path, or a hub name with its commit."""
    splits: DatasetDict
    """Memory-mapped Arrow. "train", "validation", "test"; GLUE's MNLI has "validation_matched" and so on."""
    task: GlueTask | None
    """The GLUE task, whose columns and labels `splits` then has as on the hub."""
    fingerprint: str
    """SHA-256 (hex) over the contents: the same contents give the same, wherever they lie."""
    notes: tuple[str, ...] = ()
    """What the user should be told."""
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Rows left out by `drop_bad_rows`: split -> reason -> count."""
    label_names: tuple[str, ...] | None = None
    """The order of the labels, where whoever made the data fixed one that the rows do not show."""


def load_source(
    data: str,
    *,
    validation: str | None = None,
    test: str | None = None,
    local_copy: str | None = None,
    delimiter: str | None = None,
    encoding: str = UTF_8,
    drop_bad_rows: bool = False,
) -> Source:
    """Reads what `data` names: "sample", an existing file or folder, "glue/TASK", or a hub data set
    "owner/name[:config][@revision]", looked for in this order; "glue/TASK" with `local_copy` is always the task.

    A single file becomes the split "train". A folder has train, validation (dev) and test files, or is the official
    download of a GLUE task, or was saved by `datasets`. Files are converted once to Arrow below the cache folder.

    Args:
        validation: a further file that becomes this split, in place of one that `data` has.
        test: likewise.
        local_copy: for "glue/TASK": a folder that holds the task's folder; default is $TEXTUNE_DATA, then the hub.
        delimiter: of CSV and TSV files; found by itself if None.
        encoding: of CSV, TSV and JSON files.
        drop_bad_rows: leave out and count rows that cannot be read, instead of stopping.

    Raises:
        InputNotFoundError, DataError, ConfigError, UnavailableError: `data` or a further file cannot be found or read.
        OutputError, StorageError: the cache cannot be written.
    """
    if local_copy is not None and not data.startswith("glue/"):
        raise ConfigError("A local copy of GLUE goes with --data glue/TASK only.")
    encoding = check_encoding(encoding)
    more: dict[str, tuple[Path, ...]] = {
        split: (existing_file(path),)
        for split, path in (("validation", validation), ("test", test))
        if path is not None
    }
    converted = functools.partial(_converted, delimiter=delimiter, encoding=encoding, drop_bad_rows=drop_bad_rows)
    with contextlib.ExitStack() as stack:
        found = _sample(stack) if data == "sample" else _find(data, local_copy)
        if isinstance(found, Files):
            return converted(_with_further(found, more))
    if not more:
        if delimiter is not None:
            raise ConfigError(f"--delimiter is for .csv and .tsv files; {data!r} is not one.")
        if encoding != UTF_8:
            raise ConfigError(f"--encoding is for text files; {data!r} is not one.")
        return found
    further = Files(found.name, found.location, more, task=found.task, notes=_replaced(found.splits, more))
    return _joined(found, converted(further))


def _converted(files: Files, *, delimiter: str | None, encoding: str, drop_bad_rows: bool) -> Source:
    data = convert(files, delimiter=delimiter, encoding=encoding, drop_bad_rows=drop_bad_rows)
    notes = (*files.notes, *data.notes)
    return Source(
        files.name,
        files.location,
        data.splits,
        files.task,
        data.fingerprint,
        notes,
        data.dropped,
        label_names=files.label_names,
    )


def _with_further(files: Files, more: dict[str, tuple[Path, ...]]) -> Files:
    notes = _replaced(files.splits, more)
    named = {path.resolve() for (path,) in more.values()}
    if unused := [path.name for path in files.unused if path.resolve() not in named]:
        notes += (f"{files.location}: files that are named after no split are not used: {listed(unused)}.",)
    return replace(
        files,
        splits={**files.splits, **more},
        official=files.official - more.keys(),
        notes=(*files.notes, *notes),
    )


def _find(data: str, local_copy: str | None) -> Files | Source:
    # A folder ./glue/TASK goes before $TEXTUNE_DATA, but not before a copy that was asked for.
    path = _existing(data) if local_copy is None else None
    if path is not None:
        return _folder(path) if path.is_dir() else _single_file(existing_file(path))
    if data.startswith("glue/"):
        return _glue(data.removeprefix("glue/"), local_copy)
    name = parse_hub_name(data)
    if name is None or is_data_file(Path(data)) or data.startswith("."):
        raise _not_found(data)
    return _hub(name, None)


def _existing(data: str) -> Path | None:
    try:
        path = user_path(data)
        return path if data and path.exists() else None
    except (OSError, ValueError):  # a name too long, a NUL in it
        return None


def _not_found(data: str) -> InputNotFoundError:
    if is_data_file(Path(data)) or os.sep in data:
        existing_file(data)  # says what is missing: the folder or the file
    here = sorted(entry.name for entry in Path().iterdir())
    known = ["sample", *(f"glue/{task}" for task in GLUE_TASKS), *here]
    return InputNotFoundError(
        f"There is no data {data!r}.{did_you_mean(data, known)}",
        hint="--data takes a file, a folder, 'sample', 'glue/TASK' or a hub data set 'owner/name[:config]'.",
    )


def _sample(stack: contextlib.ExitStack) -> Files:
    folder = importlib.resources.files("textune.data") / "sample"
    splits: dict[str, tuple[Path, ...]] = {
        split: (stack.enter_context(importlib.resources.as_file(folder / f"{split}.jsonl")),)
        for split in ("train", "validation", "test")
    }
    return Files("sample", "the bundled sample", splits, label_names=SAMPLE_LABELS)


def _single_file(path: Path) -> Files:
    return Files(_short(stem_of(path)), str(path), {"train": (path,)})


def _folder(folder: Path) -> Files | Source:
    name = _short(folder.resolve().name)
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _saved_by_datasets(folder, name)
    task = task_of_folder(folder.resolve().name)
    if task is not None and (files := official_files(folder, task)):
        return Files(task.name, str(folder), files, frozenset(files), task)
    files, unused = split_files(folder)
    if task is not None and _has_hub_columns(files, task):
        note = f"{folder} has the columns of glue/{task.name}: its label names and metrics are used."
        return Files(task.name, str(folder), files, task=task, unused=unused, notes=(note,))
    return Files(name, str(folder), files, unused=unused)


def _has_hub_columns(files: dict[str, tuple[Path, ...]], task: GlueTask) -> bool:
    first = next(iter(files.values()))[0]
    return set(read_batches(first, batch_rows=1).column_names) == set(task.columns)


def _glue(name: str, local_copy: str | None) -> Files | Source:
    task = GLUE_TASKS.get(name)
    if task is None:
        known = ", ".join(GLUE_TASKS)
        raise ConfigError(
            f"--data glue/{name}: GLUE has no task {name!r}; it has {known}.{did_you_mean(name, GLUE_TASKS)}"
        )
    root = local_copy or os.environ.get("TEXTUNE_DATA")
    folder = _task_folder(user_path(root), task) if root else None
    if folder is None:
        if local_copy is not None:
            raise InputNotFoundError(
                f"Expected the folder {task.folder!r} or {task.name!r} for glue/{name} in {local_copy!r}; found none."
            )
        return _hub(HubName(HUB_REPOSITORY, task.name), task)
    if files := official_files(folder, task):
        return Files(task.name, str(folder), files, frozenset(files), task)
    files, unused = split_files(folder)
    return Files(task.name, str(folder), files, task=task, unused=unused)


def _task_folder(root: Path, task: GlueTask) -> Path | None:
    if not root.is_dir():
        return None
    candidates = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    return next((folder for folder in candidates if task_of_folder(folder.resolve().name) == task), None)


def _hub(name: HubName, task: GlueTask | None) -> Source:
    loaded = load_from_hub(name)
    short = task.name if task else _short("-".join(filter(None, [name.repository.split("/")[1], name.config])))
    config = f", configuration {name.config}" if name.config else ""
    location = f"{name.repository}{config} on the hub, commit {loaded.commit}"
    return _source_of(loaded.splits, name=short, location=location, task=task, notes=loaded.notes)


def _saved_by_datasets(folder: Path, name: str) -> Source:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
        splits = loaded if isinstance(loaded, datasets.DatasetDict) else datasets.DatasetDict({"train": loaded})
        return _source_of(splits, name=name, location=str(folder), task=None, notes=())
    except TextuneError:
        raise
    except Exception as error:  # json, pyarrow, KeyError, ...: datasets does not check what it reads
        raise DataError(
            f"{folder}: expected a folder saved by `datasets`, it cannot be read ({type(error).__name__}: {error}).",
            hint="Save it again with save_to_disk.",
        ) from error


def _source_of(
    splits: DatasetDict, *, name: str, location: str, task: GlueTask | None, notes: tuple[str, ...]
) -> Source:
    """A source from what `datasets` loaded: split names made uniform, rows hashed."""
    import datasets

    renamed = {}
    for split, dataset in splits.items():
        canonical = canonical_split(str(split))
        if canonical is None or (canonical != split and canonical in splits):
            canonical = str(split)
        if canonical != split:
            notes = (*notes, f"The split {str(split)!r} is used as {canonical!r}.")
        renamed[canonical] = dataset
    if not any(len(dataset) for dataset in renamed.values()):
        raise DataError(f"{location}: found no rows.")
    uniform = datasets.DatasetDict(renamed)
    return Source(name, location, uniform, task, hash_splits(uniform), notes)


def _short(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"


def _replaced(own: Mapping[str, Any], more: Mapping[str, tuple[Path, ...]]) -> tuple[str, ...]:
    return tuple(
        f"{split}: {paths[0]} is used in place of the data's own." for split, paths in more.items() if split in own
    )


def _joined(first: Source, second: Source) -> Source:
    """`first` with the splits of `second` added or put in place of its own."""
    import datasets

    schemas = {str(name): dataset.features.arrow_schema for name, dataset in first.splits.items()}
    further = {str(name): dataset.features.arrow_schema for name, dataset in second.splits.items()}
    require_same_columns({**schemas, **further})
    splits = datasets.DatasetDict({**first.splits, **second.splits})
    return replace(
        first,
        splits=splits,
        fingerprint=hash_splits(splits),
        notes=(*first.notes, *second.notes),
        dropped=second.dropped,
    )
