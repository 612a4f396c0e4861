"""How exact the gradient of a batch is in textune's bf16 and in torch's autocast, beside the same gradient in fp64.

    python -m benchmarks.gradients [--task mrpc] [--local-copy FOLDER] [--batches 4]

The starter without dropout, batches of 8 in the order of the training split. FOLDER is as for `textune train
--local-copy`. Prints the relative error, the cosine and the parameter that is furthest off, as means over the batches.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np

from textune.data.glue import GLUE_TASKS

if TYPE_CHECKING:
    import torch

Gradient = dict[str, "torch.Tensor"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--task", choices=[name for name, task in GLUE_TASKS.items() if task.label_names], default="mrpc"
    )
    parser.add_argument("--local-copy")
    parser.add_argument("--batches", type=int, default=4)
    arguments = parser.parse_args()
    found: dict[str, list[tuple[float, float, str]]] = {}
    for gradients in measure(arguments.task, arguments.local_copy, arguments.batches):
        exact = gradients.pop("fp64")
        for way, gradient in gradients.items():
            found.setdefault(way, []).append(compare(gradient, exact))
    for way, figures in found.items():
        errors, cosines, worst = zip(*figures, strict=True)
        print(f"{way:<10} relative error {mean(errors):.2%}  cosine {mean(cosines):.5f}  furthest off: {worst[0]}")


def measure(task: str, local_copy: str | None, batches: int) -> Iterator[dict[str, Gradient]]:
    """The gradients of one batch after the other, by the way in which they were computed."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    from textune.compat import load_dataset
    from textune.data.collate import PackedBatch
    from textune.models.starter import starter_folder
    from textune.models.unpadded import unpadded
    from textune.training.working_copies import WorkingCopies

    glue = GLUE_TASKS[task]
    rows = load_dataset("glue", task, data_dir=local_copy, split="train")
    tokenizer = AutoTokenizer.from_pretrained(starter_folder())
    set_seed(42)
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        starter_folder(),
        num_labels=len(glue.label_names),
        dtype=torch.float32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )

    def gradient_of(logits: torch.Tensor) -> None:
        torch.autograd.backward(torch.nn.functional.cross_entropy(logits.double(), labels))

    def taken() -> Gradient:
        gradient = {name: item.grad.double().clone() for name, item in model.named_parameters()}
        model.zero_grad(set_to_none=True)
        return gradient

    for number in range(batches):
        batch = rows.select(range(8 * number, 8 * number + 8))
        labels = torch.tensor(batch["label"])
        texts = [tokenizer(*item, truncation=True) for item in zip(*(batch[c] for c in glue.text_columns), strict=True)]
        padded = tokenizer.pad(texts, return_tensors="pt")
        gradients = {}
        gradient_of(model.double()(**padded).logits)
        gradients["fp64"] = taken()
        gradient_of(model.float()(**padded).logits)
        gradients["fp32"] = taken()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**padded).logits
        gradient_of(logits)
        gradients["autocast"] = taken()
        lengths = np.array([len(text["input_ids"]) for text in texts])
        ids, types = (
            torch.tensor([[item for text in texts for item in text[name]]]) for name in ("input_ids", "token_type_ids")
        )
        positions = torch.cat([torch.arange(length) for length in lengths.tolist()])[None]
        copies = WorkingCopies(model, torch.bfloat16)
        copies.refresh()
        with unpadded(model) as encoder, copies.in_place():
            with torch.autocast("cpu", torch.bfloat16):
                logits = encoder(PackedBatch(ids, types, positions, lengths))
            gradient_of(logits)
        copies.collect_gradients()
        gradients["textune"] = taken()
        yield gradients


def compare(found: Gradient, exact: Gradient) -> tuple[float, float, str]:
    """Relative error and cosine of the whole gradient; the parameter with the largest relative error, and that."""
    import torch

    one, other = (torch.cat([gradient[name].flatten() for name in exact]) for gradient in (found, exact))
    # The keys' biases move all scores of a query alike: their gradient is nothing but rounding.
    errors = {
        name: float((found[name] - value).norm() / value.norm())
        for name, value in exact.items()
        if not name.endswith("key.bias")
    }
    worst = max(errors, key=errors.__getitem__)
    cosine = float(torch.nn.functional.cosine_similarity(one, other, dim=0))
    return float((one - other).norm() / other.norm()), cosine, f"{worst} ({errors[worst]:.1%})"


if __name__ == "__main__":
    main()
