from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import FAMILIES, make_tiny_model, tiny_tokenizer
from transformers import AutoTokenizer, pipeline

from textune.errors import CheckpointError, ConfigError, InputNotFoundError, StorageError, TextuneError
from textune.models.embeddings import TextEncoder
from textune.models.load import (
    CHECKPOINT_FILES,
    Classifier,
    check_folder,
    find_checkpoint,
    load_classifier,
    load_trained,
    save_classifier,
)
from textune.models.quiet import quiet_transformers

SINGLE = "single_label_classification"
TEXTS = ["the film was good", "a very dull play .", "we left"]


class ModelFolder(Protocol):
    def __call__(self, family: str = "bert", *, label_names: Any = None) -> Path: ...


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that the test may spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **changes}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def classifier(folder: Path, *, names: tuple[str, ...] = ("no", "yes"), seed: int = 1, **options: Any) -> Classifier:
    return load_classifier(folder, problem_type=SINGLE, label_names=names, seed=seed, **options)


def scores(loaded: Classifier, texts: list[str] = TEXTS) -> list[dict[str, float]]:
    """The probability of each label by its name."""
    inputs = loaded.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        probabilities = loaded.model(**inputs).logits.softmax(-1)
    names = loaded.model.config.id2label
    return [{names[index]: float(value) for index, value in enumerate(row)} for row in probabilities]


def state(loaded: Classifier) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return set(first) == set(second) and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


# Finding and refusing


def test_a_folder_is_found(tiny_checkpoint: Path) -> None:
    assert find_checkpoint(str(tiny_checkpoint)) == tiny_checkpoint


@pytest.mark.parametrize("name", ["./none", "/no/such/folder", "~/none", "a/b/c"])
def test_a_folder_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(InputNotFoundError, match="--model: there is no folder") as caught:
        find_checkpoint(name)
    assert repr(name) in caught.value.message


def test_a_folder_that_may_not_be_looked_at_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputNotFoundError, match=r"Cannot read '.*': File name too long"):
        find_checkpoint("./" + "a" * 300)

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(InputNotFoundError, match=r"Cannot read '.*checkpoint': Permission denied"):
        find_checkpoint(str(folder))


def test_a_file_is_no_checkpoint(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors' is a file, expected the folder"):
        find_checkpoint(str(folder / "model.safetensors"))


@pytest.mark.parametrize("name", ["starter", "FOLDER"])
def test_a_revision_of_what_is_no_hub_model_is_refused(tiny_checkpoint: Path, name: str) -> None:
    what = "the packaged checkpoint" if name == "starter" else "a folder"
    with pytest.raises(ConfigError, match=rf"^model\.revision: .*' is {what} and no hub model; found 'v1'\."):
        find_checkpoint(name.replace("FOLDER", str(tiny_checkpoint)), revision="v1")


def test_a_checkpoint_has_the_files_of_its_tokenizer_and_neither_code_nor_pickles() -> None:
    from transformers import AlbertTokenizer, BertTokenizer, BertweetTokenizer, PhobertTokenizer, RobertaTokenizer

    kinds = (AlbertTokenizer, BertTokenizer, BertweetTokenizer, PhobertTokenizer, RobertaTokenizer)
    names = {name for kind in kinds for name in kind.vocab_files_names.values()}
    assert {"bpe.codes", "merges.txt", "vocab.txt"} < names
    others = {"modeling.py", "pytorch_model.bin"}
    assert {name for name in names | others if any(fnmatch(name, item) for item in CHECKPOINT_FILES)} == names


def spoil_config(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_text(text)


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_short(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no checkpoint: there is no config.json in it"),
        (spoil_config("{"), "Expected JSON in "),
        (spoil_config("[]"), "expected an object in config.json, found a list"),
        (spoil_config("{}"), "expected a `model_type` that transformers knows in config.json, found None"),
        (
            lambda folder: edit_config(folder, model_type="bert-9000"),
            "transformers knows in config.json, found 'bert-9000'",
        ),
        (lambda folder: edit_config(folder, model_type=["bert"]), "transformers knows in config.json, found ['bert']"),
        (lambda folder: edit_config(folder, model_type="clip"), "has no sequence classification model for 'clip'"),
        (
            lambda folder: edit_config(folder, auto_map={"AutoModel": "modeling.Evil"}),
            "wants to run code of its own (`auto_map` in config.json); textune never does that",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "expected weights in *.safetensors, found none"),
        (only_pickle, "found only pytorch_model.bin, a pickle, which can run code when it is read"),
        (cut_short, "model.safetensors is cut short or damaged"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors is cut short or damaged"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99),
            "model.safetensors is cut short or damaged",
        ),
    ],
    ids=[
        *("no config", "broken config", "list", "no type", "unknown type", "type that is a list", "clip", "auto_map"),
        *("no weights", "pickle", "truncated", "empty", "garbage"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(folder: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(folder)
    with pytest.raises(TextuneError) as caught:
        find_checkpoint(str(folder))
    assert message in caught.value.message
    assert str(folder) in caught.value.message
    assert caught.value.exit_code == 65


def test_refusals_show_the_way_out(folder: Path) -> None:
    only_pickle(folder)
    with pytest.raises(CheckpointError) as caught:
        check_folder(folder, name="x")
    assert "save_pretrained" in str(caught.value.hint)
    edit_config(folder, auto_map={})
    with pytest.raises(CheckpointError) as caught:
        check_folder(folder, name="x")
    assert "remove `auto_map`" in str(caught.value.hint)


def test_a_run_named_as_a_model_says_where_its_model_is(tiny_checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "run" / "model")
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(str(tmp_path / "run"))
    assert caught.value.hint == f"It looks like a run of textune: its model is in {str(tmp_path / 'run' / 'model')!r}."


@pytest.mark.parametrize(
    "changes",
    [{"hidden_size": "many"}, {"num_attention_heads": 7}, {"vocab_size": -1}, {"hidden_act": "none such"}],
    ids=str,
)
def test_a_configuration_that_makes_no_model_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError, match=r"cannot be (used|loaded): \S") as caught:
        classifier(folder)
    assert str(folder) in caught.value.message


# Loading


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 65_536}, "expected at most 1,000 as 'num_hidden_layers' in config.json, found more"),
        ({"num_hidden_layers": 10**400}, "expected at most 1,000 as 'num_hidden_layers'"),
        ({"num_hidden_layers": 0}, "expected a whole number from 1 on as 'num_hidden_layers' in config.json, found 0"),
        ({"num_attention_heads": -1}, "as 'num_attention_heads' in config.json, found -1"),
        ({"num_attention_heads": "2"}, "as 'num_attention_heads' in config.json, found '2'"),
        ({"num_labels": 2**31}, "expected at most 1,000,000 as 'num_labels'"),
        ({"intermediate_size": 6_553_624}, "config.json describes an encoder of"),
        ({"vocab_size": 2**40}, "config.json describes an encoder of"),
        ({"hidden_size": 2**62}, "checkpoint"),
    ],
)
def test_a_configuration_with_impossible_sizes_is_refused_at_once(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    edit_config(folder, **changes)
    started = time.process_time()
    for use in (classifier, load_trained, TextEncoder):
        with pytest.raises(CheckpointError, match=message):
            use(find_checkpoint(str(folder)))
    assert time.process_time() - started < 5


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_becomes_a_classifier(tiny_model_folder: ModelFolder, family: str) -> None:
    folder = tiny_model_folder(family)
    loaded = classifier(find_checkpoint(str(folder)), names=("a", "b", "c"))
    assert not loaded.model.training
    assert loaded.model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert loaded.model.config.label2id == {"a": 0, "b": 1, "c": 2}
    assert loaded.model.config.problem_type == SINGLE
    assert all(set(row) == {"a", "b", "c"} for row in scores(loaded))
    encoder = load_file(folder / "model.safetensors")
    mine = loaded.model.base_model.state_dict()
    kept = [name for name in encoder if name in mine]
    assert len(kept) >= len(encoder) - 2, "all but a pooler that the classifier does without"
    assert all(torch.equal(mine[name], encoder[name]) for name in kept)


def test_the_note_says_what_is_new_and_what_was_dropped(tiny_model_folder: ModelFolder) -> None:
    assert classifier(tiny_model_folder("bert")).notes == ("new, to be trained: classifier (66 weights)",)
    assert "; ".join(classifier(tiny_model_folder("roberta")).notes).split("; ") == [
        "new, to be trained: classifier.dense, classifier.out_proj (1,122 weights)",
        "dropped from the checkpoint: pooler.dense",
    ]
    trained = tiny_model_folder("bert", label_names=["no", "yes"])
    assert classifier(trained).notes == ("all weights, the head's too, come from the checkpoint",)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_are_single_precision_whatever_is_stored(folder: Path, dtype: torch.dtype) -> None:
    stored: dict[str, torch.Tensor] = {}

    def halve(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        stored.update({name: tensor.to(dtype) for name, tensor in weights.items()})
        return stored

    edit_weights(folder, halve)
    edit_config(folder, dtype=str(dtype).removeprefix("torch."), torch_dtype=str(dtype).removeprefix("torch."))
    loaded = classifier(folder)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    words = "embeddings.word_embeddings.weight"
    assert torch.equal(loaded.model.base_model.state_dict()[words], stored[words].float())


@pytest.mark.parametrize(
    ("family", "attributes"),
    [
        ("bert", {"hidden_dropout_prob", "attention_probs_dropout_prob"}),
        ("distilbert", {"dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout"}),
        ("albert", {"hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"}),
        ("electra", {"hidden_dropout_prob", "attention_probs_dropout_prob", "summary_last_dropout"}),
        ("deberta-v2", {"hidden_dropout_prob", "attention_probs_dropout_prob", "pooler_dropout"}),
        ("modernbert", {"embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout"}),
        ("roberta", {"hidden_dropout_prob", "attention_probs_dropout_prob"}),
    ],
)
@pytest.mark.parametrize("probability", [0.0, 0.25])
def test_dropout_is_set_everywhere(
    tiny_model_folder: ModelFolder, family: str, attributes: set[str], probability: float
) -> None:
    model = classifier(tiny_model_folder(family), dropout=probability).model
    assert {getattr(model.config, name) for name in attributes} == {probability}
    layers = [module for module in model.modules() if type(module).__name__.endswith("Dropout")]
    assert {module.p for module in layers} <= {probability}
    model.train()
    inputs = tiny_tokenizer(family)(TEXTS, padding=True, return_tensors="pt")
    first, second = model(**inputs).logits, model(**inputs).logits
    assert torch.equal(first, second) == (probability == 0)


def test_dropout_is_the_checkpoints_own_unless_given(folder: Path) -> None:
    edit_config(folder, hidden_dropout_prob=0.3)
    assert classifier(folder).model.config.hidden_dropout_prob == 0.3


def test_the_head_depends_on_the_seed_alone(tiny_checkpoint: Path) -> None:
    torch.manual_seed(5)
    first = state(classifier(tiny_checkpoint, seed=1))
    torch.manual_seed(6)
    torch.rand(10)
    assert equal(state(classifier(tiny_checkpoint, seed=1)), first)
    other = state(classifier(tiny_checkpoint, seed=2))
    assert [name for name in first if not torch.equal(first[name], other[name])] == ["classifier.weight"]


def test_global_generators_stay_as_they_were(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()
    classifier(tiny_checkpoint)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), numpy_before, strict=True))
    assert seeded == [], "the generators of accelerators belong to the user as well"


# Padding tokens


@pytest.mark.parametrize("stored", [None, 7])
def test_a_decoder_reads_the_last_token_in_front_of_the_tokenizers_padding(tmp_path: Path, stored: int | None) -> None:
    """What config.json says of it would let transformers refuse a batch, or read the padding."""
    from transformers import GPT2Config, GPT2ForSequenceClassification

    tokenizer = tiny_tokenizer("distilbert")
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=stored,
        id2label={0: "no", 1: "yes"},
        initializer_range=0.2,
    )
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    told = () if stored is None else ("the padding token is the tokenizer's, id 0; config.json said 7",)
    trained, begun = load_trained(tmp_path), classifier(tmp_path)
    assert (trained.notes, begun.notes[1:]) == (told, told)
    for loaded in (trained, begun):
        for text, found in zip(TEXTS, scores(loaded), strict=True):
            assert found == pytest.approx(scores(loaded, [text])[0], abs=1e-6)


def test_an_encoder_counts_positions_as_in_its_pretraining(tiny_model_folder: ModelFolder, tmp_path: Path) -> None:
    """From an id that need not be that of the tokenizer's padding token."""
    copy = Path(shutil.copytree(tiny_model_folder("roberta"), tmp_path / "copy"))
    edit_config(copy, pad_token_id=5)
    loaded = classifier(copy)
    assert loaded.model.config.pad_token_id == 5
    assert len(loaded.notes) == 1, "nothing has changed of which to speak"


# Heads of earlier trainings


def test_a_head_for_the_same_labels_is_kept(tiny_model_folder: ModelFolder) -> None:
    trained = tiny_model_folder("bert", label_names=["no", "yes"])
    assert equal(state(classifier(trained)), state(load_trained(trained)))


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_in_another_order_keep_their_meaning(tiny_model_folder: ModelFolder, family: str) -> None:
    trained = tiny_model_folder(family, label_names=["a", "b", "c"])
    moved = classifier(trained, names=("c", "a", "b"))
    assert moved.model.config.id2label == {0: "c", 1: "a", 2: "b"}
    assert "its rows were put in the order of the data" in moved.notes[1]
    for mine, theirs in zip(scores(moved), scores(load_trained(trained)), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_as_many_labels_as_hidden_units_confuse_nothing(tmp_path: Path, family: str) -> None:
    """The hidden layer of the head then has the same shape as its last one."""
    names = [f"label {index:02d}" for index in range(32)]
    make_tiny_model(family, label_names=names).save_pretrained(tmp_path)
    tiny_tokenizer(family).save_pretrained(tmp_path)
    moved = classifier(tmp_path, names=tuple(reversed(names)))
    for mine, theirs in zip(scores(moved), scores(load_trained(tmp_path)), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-6)


def test_a_head_for_other_labels_is_kept_and_said(tiny_model_folder: ModelFolder) -> None:
    trained = tiny_model_folder("bert", label_names=["no", "yes"])
    loaded = classifier(trained, names=("ham", "spam"))
    assert loaded.notes[1] == "the checkpoint's head was trained for other labels (no, yes); training goes on from it"
    assert loaded.model.config.id2label == {0: "ham", 1: "spam"}
    assert equal(state(loaded), state(load_trained(trained)))


def test_a_head_of_another_size_is_new(tiny_model_folder: ModelFolder) -> None:
    trained = tiny_model_folder("bert", label_names=["no", "yes"])
    loaded = classifier(trained, names=("no", "yes", "perhaps"))
    assert loaded.notes == ("new, to be trained: classifier (99 weights)",)
    assert loaded.model.classifier.weight.shape == (3, 32)


def test_a_regression_has_one_output(tiny_checkpoint: Path) -> None:
    loaded = load_classifier(tiny_checkpoint, problem_type="regression", label_names=[], seed=1)
    assert (loaded.model.config.num_labels, loaded.model.config.problem_type) == (1, "regression")
    assert loaded.model.classifier.weight.shape == (1, 32)


# Weights that do not fit


def test_half_an_encoder_is_refused(folder: Path) -> None:
    edit_weights(folder, lambda weights: {name: value for name, value in weights.items() if "layer.1." not in name})
    with pytest.raises(
        CheckpointError, match=r"lacks 16 of the 39 weights of its encoder, for example 'bert\."
    ) as caught:
        classifier(folder)
    assert caught.value.hint == "Its config.json and its weights probably belong to different models."


def test_an_encoder_of_another_size_is_refused(folder: Path) -> None:
    edit_config(folder, intermediate_size=64)
    with pytest.raises(CheckpointError, match="lacks 6 of the 39 weights of its encoder"):
        classifier(folder)


def test_a_missing_pooler_is_new_and_said(folder: Path) -> None:
    edit_weights(folder, lambda weights: {name: value for name, value in weights.items() if "pooler" not in name})
    (note,) = classifier(folder).notes
    assert note == "new, to be trained: bert.pooler.dense, classifier (1,122 weights)"


def test_an_encoder_is_not_a_trained_classifier(tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a trained classifier: it lacks classifier"):
        load_trained(tiny_checkpoint)


# Saving


@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "modernbert"])
def test_what_is_saved_is_loaded_the_same_here_and_in_transformers(
    tiny_model_folder: ModelFolder, tmp_path: Path, family: str
) -> None:
    loaded = classifier(tiny_model_folder(family), names=("no", "yes", 'per"haps'))
    loaded.tokenizer(["a"], truncation=True, max_length=4)
    save_classifier(loaded, tmp_path / "model", max_length=24)
    again = load_trained(tmp_path / "model")
    assert equal(state(again), state(loaded))
    assert again.tokenizer.model_max_length == 24
    assert again.model.config.id2label == {0: "no", 1: "yes", 2: 'per"haps'}

    texts = [*TEXTS, "very " * 50]
    found = pipeline("text-classification", model=str(tmp_path / "model"), top_k=None)(texts, truncation=True)
    cut = [" ".join(text.split()[:22]) for text in texts]
    for theirs, mine in zip(found, scores(loaded, cut), strict=True):
        assert {item["label"]: item["score"] for item in theirs} == pytest.approx(mine, abs=1e-5)


def test_the_saved_folder_holds_no_pickle_and_no_truncation(tiny_checkpoint: Path, tmp_path: Path) -> None:
    loaded = classifier(tiny_checkpoint)
    loaded.tokenizer(["a"], truncation=True, max_length=4, padding="max_length")
    save_classifier(loaded, tmp_path / "model", max_length=24)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    kept = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    assert (kept["truncation"], kept["padding"]) == (None, None)


def test_saving_again_replaces_the_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    save_classifier(classifier(tiny_checkpoint), target, max_length=24)
    (target / "old").touch()
    save_classifier(classifier(tiny_checkpoint, seed=2), target, max_length=32)
    assert not (target / "old").exists()
    assert AutoTokenizer.from_pretrained(target).model_max_length == 32
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_saving_that_fails_half_way_keeps_the_old_model_and_leaves_nothing(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    loaded = classifier(tiny_checkpoint)
    save_classifier(loaded, target, max_length=24)
    before = {path.name: path.read_bytes() for path in target.iterdir()}

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(loaded.tokenizer), "save_pretrained", fail)
    with pytest.raises(StorageError, match="No space left while writing"):
        save_classifier(loaded, target, max_length=32)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_loading_leaves_transformers_as_talkative_as_it_was(tiny_checkpoint: Path) -> None:
    from transformers.utils import logging

    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    with quiet_transformers():
        assert logging.get_verbosity() == logging.ERROR
    classifier(tiny_checkpoint)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
