"""What each process does in test_trainer_parallel.py: `several_trainers.py FOLDER` writes RANK.json and RANK.npz."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import tiny_tokenizer
from transformers import DataCollatorWithPadding

from tests.compat.trainers import accuracy, arguments, losses, tokenized, trainer, weights
from textune.compat import Trainer, TrainerCallback

ROWS = 27  # the last of four steps of eight has three rows, all in the first process


class OwnCollator:
    """Does what the padding one does; because of it the Trainer takes the general path."""

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        return DataCollatorWithPadding(tiny_tokenizer())(rows)


class Points(torch.nn.Module):
    """A line through two inputs; rows with the label -100 do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        torch.nn.init.constant_(self.layer.weight, 0.1)
        torch.nn.init.zeros_(self.layer.bias)

    def forward(self, values: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        logits = self.layer(values)
        if labels is None:
            return {"logits": logits}
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def points(*, without_label: int = 0) -> list[dict[str, Any]]:
    """Eighteen rows, each with its number in its second value; the first ones may be without a label."""
    return [
        {
            "values": torch.tensor([(-1.0) ** number, number / 18]),
            "labels": -100 if number < without_label else number % 2,
        }
        for number in range(18)
    ]


class Stream(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from points()


class Records(Trainer):
    """Remembers which rows it trained on."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        self.__dict__.setdefault("seen", []).extend((inputs["values"][:, 1] * 18).round().int().tolist())
        return super().training_step(model, inputs, num_items_in_batch)


class Scaled(Records):
    """Divides by the labels of the whole step, and says so."""

    loss_is_scaled_for_ga = True


def of_whole_step(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    return torch.nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum") / num_items_in_batch


class OwnLoader(Records):
    """Knows nothing of other processes and shuffles with torch's own generator."""

    def get_train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(self.train_dataset, batch_size=4, shuffle=True)


class StopsInOneProcess(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        if args.process_index == 1 and state.global_step == 2:
            control.should_training_stop = True


def texts(folder: Path, *, batch_size: int, **values: Any) -> Any:
    """A Trainer over uneven texts, made the same in one process and in two."""
    data = tokenized().select(range(ROWS)).remove_columns("text")
    return trainer(
        folder,
        train_dataset=data,
        eval_dataset=data,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=5,
        num_train_epochs=2,
        compute_metrics=accuracy,
        eval_strategy="epoch",
        **values,
    )


def on_points(folder: Path, data: Any, *, batch_size: int, kind: type[Trainer] = Records, **values: Any) -> Any:
    values = {"max_steps": 6, "learning_rate": 0.1, "per_device_train_batch_size": batch_size, **values}
    loss = of_whole_step if kind is Scaled else None
    made = kind(
        Points(), arguments(folder, **values), train_dataset=data, eval_dataset=points(), compute_loss_func=loss
    )
    made.train()
    return made


def main(folder: Path) -> None:
    report: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}

    def keep(name: str, made: Any) -> None:
        norms = [entry["grad_norm"] for entry in made.state.log_history if "grad_norm" in entry]
        seen = getattr(made, "seen", [])
        report[name] = {"path": made.training_path, "losses": losses(made), "norms": norms, "seen": seen}
        arrays.update({f"{name}/{key}": value for key, value in weights(made.model).items()})

    for name, values in (("text", {}), ("general", {"data_collator": OwnCollator()})):
        saved = {"save_strategy": "epoch", "load_best_model_at_end": name == "text"}
        made = texts(folder / name, batch_size=4, **saved, **values)
        made.train()
        keep(name, made)
        predicted = made.predict(made.eval_dataset)
        arrays |= {f"{name}-logits": predicted.predictions, f"{name}-labels": predicted.label_ids}
        report[name] |= {"metrics": predicted.metrics, "best": made.state.best_model_checkpoint}
        resumed = texts(folder / name, batch_size=4, save_strategy="no", **values)
        resumed.train(resume_from_checkpoint=str(folder / name / "checkpoint-4"))
        keep(f"{name}-resumed", resumed)
    made.save_model(str(folder / "saved"))
    report["zero"] = [made.is_world_process_zero(), made.state.is_world_process_zero, made.args.local_rank]
    report["gathered"] = made.accelerator.gather(torch.tensor([made.args.process_index])).tolist()
    uneven = torch.full((2, 1 + made.args.process_index), made.args.process_index)
    report["padded"] = made.accelerator.pad_across_processes(uneven, dim=1, pad_index=-100).tolist()
    with made.args.main_process_first():
        report["found"] = (folder / "prepared").exists()
        (folder / "prepared").touch()

    keep("list", on_points(folder, points(), batch_size=4, max_steps=-1, num_train_epochs=1))
    keep("stream", on_points(folder, Stream(), batch_size=4, max_steps=3))
    torch.manual_seed(made.args.process_index)
    keep("own", on_points(folder, points(), batch_size=4, kind=OwnLoader, max_steps=-1, num_train_epochs=2))
    for average in (True, False):
        data, name = points(without_label=3), f"average-{average}"
        keep(name, on_points(folder, data, batch_size=9, max_steps=1, average_tokens_across_devices=average))
    keep("scaled", on_points(folder, points(without_label=3), batch_size=9, max_steps=1, kind=Scaled))
    stopped = trainer(folder, callbacks=[StopsInOneProcess()], max_steps=5)
    report["stopped"] = stopped.train().global_step
    (folder / f"{made.args.process_index}.json").write_text(json.dumps(report))
    np.savez(folder / f"{made.args.process_index}.npz", **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
