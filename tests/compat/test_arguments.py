"""`TrainingArguments`: every name of every release is taken with its meaning or refused by name."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.training_args import OptimizerNames

from textune.compat.argument_table import RENAMED, Argument, arguments_table, known_names, markdown_table
from textune.compat.arguments import TrainingArguments
from textune.errors import ConfigError

# transformers 2.11 to 5.22 had these and 5.23 has not; see the docstring of `argument_fields`.
OLDER = {
    "adafactor",
    "dispatch_batches",
    "evaluate_during_training",
    "evaluation_strategy",
    "fp16_backend",
    "fp16_opt_level",
    "fsdp_min_num_params",
    "fsdp_transformer_layer_cls_to_wrap",
    "group_by_length",
    "half_precision_backend",
    "include_inputs_for_metrics",
    "include_tokens_per_second",
    "jit_mode_eval",
    "logging_dir",
    "mp_parameters",
    "no_cuda",
    "overwrite_output_dir",
    "past_index",
    "per_gpu_eval_batch_size",
    "per_gpu_train_batch_size",
    "push_to_hub_model_id",
    "push_to_hub_organization",
    "push_to_hub_token",
    "ray_scope",
    "save_safetensors",
    "sharded_ddp",
    "split_batches",
    "torchdynamo",
    "tp_size",
    "tpu_metrics_debug",
    "tpu_num_cores",
    "use_ipex",
    "use_legacy_prediction_loop",
    "use_mps_device",
    "warmup_ratio",
    "xpu_backend",
}
# A value of each refused field that asks for what textune does not have.
ASKED: dict[str, Any] = {
    "optim_args": "rank=4",
    "optim_target_modules": ["all-linear"],
    "torch_compile_backend": "inductor",
    "torch_compile_mode": "default",
    "liger_kernel_config": {"rope": True},
    "neftune_noise_alpha": 5.0,
    "accelerator_config": {"split_batches": True},
    "parallelism_config": "config",
    "fsdp": "full_shard",
    "fsdp_config": {"version": 2},
    "deepspeed": "ds_config.json",
    "debug": "underflow_overflow",
    "tpu_num_cores": 8,
    "past_index": 0,
    "sharded_ddp": "simple",
    "fsdp_min_num_params": 100,
    "fsdp_transformer_layer_cls_to_wrap": "BertLayer",
    "tp_size": 2,
    "mp_parameters": "x",
    "torchdynamo": "inductor",
    "ray_scope": "all",
    "dispatch_batches": True,
    "split_batches": True,
}


def rows(status: str) -> list[Argument]:
    return [row for row in arguments_table().values() if row.status == status]


def problems(**values: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        TrainingArguments("out", **values)
    return caught.value.problems


# ---- The table ----


def test_names_defaults_and_order_are_those_of_transformers() -> None:
    from transformers import TrainingArguments as Theirs

    theirs = dataclasses.fields(Theirs)
    ours = [row for row in arguments_table().values() if not row.older]
    assert [row.name for row in ours] == [field.name for field in theirs]
    for row, field in zip(ours, theirs, strict=True):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        assert row.default == default, row.name


def test_completed_arguments_are_those_of_transformers() -> None:
    from transformers import TrainingArguments as Theirs

    asked: list[dict[str, Any]] = [
        {},
        {"eval_strategy": "steps", "logging_steps": 20.0, "warmup_steps": 0.1, "lr_scheduler_type": "cosine"},
        {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True},
        {"metric_for_best_model": "f1", "include_num_input_tokens_seen": True, "hub_token": "secret"},
        {"lr_scheduler_kwargs": '{"num_cycles": 2}', "activation_checkpointing": True, "output_dir": "~/out"},
    ]
    for values in asked:
        ours = TrainingArguments(use_cpu=True, **values)
        theirs = Theirs(use_cpu=True, **values)
        expected = {name: value for name, value in theirs.to_dict().items() if name != "accelerator_config"}
        assert {name: value for name, value in ours.to_dict().items() if name != "accelerator_config"} == expected
        for name in ("eval_strategy", "save_strategy", "logging_strategy", "lr_scheduler_type"):
            assert type(getattr(ours, name)) is type(getattr(theirs, name))
        for total in (1, 7, 1000):
            assert ours.get_warmup_steps(total) == theirs.get_warmup_steps(total)
        for name in ("train_batch_size", "eval_batch_size", "n_gpu", "world_size", "process_index", "should_save"):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert (ours.device, ours.parallel_mode) == (theirs.device, theirs.parallel_mode)
        assert ours.get_process_log_level() == theirs.get_process_log_level()
        assert ours.ddp_timeout_delta == theirs.ddp_timeout_delta


def test_older_names_are_all_there() -> None:
    older = {row.name for row in arguments_table().values() if row.older} | RENAMED.keys()
    assert older == OLDER
    assert len(known_names()) == len(set(known_names()))


def test_every_row_says_something() -> None:
    for row in arguments_table().values():
        assert row.decision.text, row.name
        assert row.types, row.name


def test_the_table_of_the_migration_guide() -> None:
    lines = markdown_table().splitlines()
    assert len(lines) == 2 + len(known_names())
    assert "| `learning_rate` | `5e-05` | Highest learning rate of the schedule. |" in lines
    assert "| `evaluation_strategy` | `None` | `eval_strategy`. The same values. |" in lines
    assert any(line.startswith("| `push_to_hub` | `False` | **refused**: Upload") for line in lines)
    assert all(line.count("|") == 4 for line in lines)
    guide = Path(__file__).parents[2] / "docs" / "migration.md"
    assert guide.read_text(encoding="utf-8").endswith(markdown_table().rstrip() + "\n"), "write it into the guide anew"


# ---- Every field, one by one ----


@pytest.mark.parametrize("name", known_names())
def test_every_name_is_taken_with_its_default(name: str) -> None:
    default = RENAMED[name].default if name in RENAMED else arguments_table()[name].default
    given = TrainingArguments(**{"output_dir": "out", **({name: default} if name != "output_dir" else {})})
    assert given == TrainingArguments("out")
    assert given.notes == ()


@pytest.mark.parametrize("row", rows("refused"), ids=lambda row: row.name)
def test_every_refused_field_is_refused_by_name_with_the_way_out(row: Argument) -> None:
    value = ASKED.get(row.name, not row.default)
    shown = f"{row.name}={value!r}: textune does not have it. {row.decision.text}"
    assert problems(**{row.name: value}) == [shown]


@pytest.mark.parametrize("row", rows("no effect"), ids=lambda row: row.name)
def test_every_field_without_effect_is_said(row: Argument, caplog: pytest.LogCaptureFixture) -> None:
    values = {bool: not row.default, int: 3, str: ("x", *row.decision.choices)[-1]}
    value = next(values[kind] for kind in row.types if kind in values)
    arguments = TrainingArguments("out", **{row.name: value})
    shown = "..." if row.name.endswith("_token") else repr(value)
    assert arguments.notes == (f"{row.name}={shown} changes nothing: {row.decision.text}.",)
    assert [record.getMessage() for record in caplog.records] == list(arguments.notes)


# What an honoured field needs besides; None: it has a test of its own.
NEEDS: dict[str, dict[str, Any] | None] = {
    "report_to": None,
    "tf32": None,
    "fp16": None,
    "fp16_full_eval": None,
    "ddp_backend": None,
    "load_best_model_at_end": {"save_strategy": "best", "eval_strategy": "epoch"},
    "dataloader_persistent_workers": {"dataloader_num_workers": 1},
    "dataloader_prefetch_factor": {"dataloader_num_workers": 1},
    "dataloader_multiprocessing_context": {"dataloader_num_workers": 1},
}
PLAIN = [row for row in rows("honoured") if NEEDS.get(row.name, {}) is not None]


@pytest.mark.parametrize("row", PLAIN, ids=lambda row: row.name)
def test_every_honoured_field_keeps_its_value(row: Argument) -> None:
    values: dict[type, Any] = {bool: not row.default, int: 7, float: 0.5, str: "x", list: ["x"], dict: {"x": 1}}
    value = next(values[kind] for kind in row.types if kind in values)
    if choices := row.decision.choices:
        value = [choices[0]] if isinstance(row.default, list) else choices[0]
    arguments = TrainingArguments(**{"output_dir": "out", row.name: value, **(NEEDS.get(row.name) or {})})
    assert getattr(arguments, row.name) == value
    assert arguments.notes == ()


@pytest.mark.parametrize("row", rows("honoured"), ids=lambda row: row.name)
def test_every_bound_is_checked(row: Argument) -> None:
    decision = row.decision
    if decision.low is not None:
        below = decision.low - 1
        value = int(below) if float not in row.types else below
        assert any(text.startswith(f"{row.name}: expected at least") for text in problems(**{row.name: value}))
    if decision.below is not None:
        text = f"{row.name}: expected less than {decision.below}, found {decision.below}."
        assert problems(**{row.name: decision.below}) == [text]
    if decision.choices:
        wrong = ["nonsense"] if isinstance(row.default, list) else "nonsense"
        assert problems(**{row.name: wrong})[0].startswith(f"{row.name}: expected one of '{decision.choices[0]}'")
    with pytest.raises(ConfigError, match=f"{row.name}: expected "):
        TrainingArguments(**{"output_dir": "out", row.name: object()})


# ---- Older names ----


@pytest.mark.parametrize(
    ("older", "value", "new", "meant"),
    [
        ("evaluation_strategy", "epoch", "eval_strategy", "epoch"),
        ("evaluate_during_training", True, "eval_strategy", "steps"),
        ("per_gpu_train_batch_size", 4, "per_device_train_batch_size", 4),
        ("per_gpu_eval_batch_size", 4, "per_device_eval_batch_size", 4),
        ("no_cuda", True, "use_cpu", True),
        ("warmup_ratio", 0.06, "warmup_steps", 0.06),
        ("group_by_length", True, "train_sampling_strategy", "group_by_length"),
        ("include_inputs_for_metrics", True, "include_for_metrics", ["inputs"]),
        ("adafactor", True, "optim", "adafactor"),
    ],
)
def test_renamed(older: str, value: Any, new: str, meant: Any) -> None:
    arguments = TrainingArguments("out", **{older: value})
    assert getattr(arguments, new) == meant
    assert getattr(arguments, older) == value
    assert older in RENAMED

    assigned = TrainingArguments("out")
    assert getattr(assigned, older) == getattr(TrainingArguments("out", **{older: None}), older)
    setattr(assigned, older, value)
    assert getattr(assigned, new) == meant


def test_renamed_and_new_together(caplog: pytest.LogCaptureFixture) -> None:
    assert TrainingArguments("out", evaluation_strategy="epoch", eval_strategy="epoch").eval_strategy == "epoch"
    assert problems(evaluation_strategy="epoch", eval_strategy="steps") == [
        "evaluation_strategy='epoch' and eval_strategy='steps' contradict each other; leave out evaluation_strategy."
    ]
    assert TrainingArguments("out", warmup_ratio=0.1, warmup_steps=20).warmup_steps == 20
    assert [record.getMessage() for record in caplog.records] == ["warmup_steps=20 is used, not warmup_ratio=0.1."]
    assert problems(warmup_ratio=1.5) == ["warmup_ratio: expected at least 0 and less than 1, found 1.5."]
    both = TrainingArguments("out", include_for_metrics=["loss"], include_inputs_for_metrics=True)
    assert both.include_for_metrics == ["loss", "inputs"]
    both.include_inputs_for_metrics = False  # type: ignore[attr-defined]
    assert both.include_for_metrics == ["loss"]


def test_activation_checkpointing_by_either_name() -> None:
    options = {"use_reentrant": False}
    older = TrainingArguments("out", gradient_checkpointing=True, gradient_checkpointing_kwargs=options)
    assert older.activation_checkpointing is True
    assert older.activation_checkpointing_kwargs == options
    assert TrainingArguments("out", activation_checkpointing=True).gradient_checkpointing is True
    assert TrainingArguments("out").gradient_checkpointing is False


def test_replace_keeps_what_was_given_by_an_older_name() -> None:
    arguments = TrainingArguments("out", evaluation_strategy="epoch", overwrite_output_dir=True)
    assert dataclasses.replace(arguments, seed=1).eval_strategy == "epoch"
    other = dataclasses.replace(arguments, eval_strategy="no")
    assert (other.eval_strategy, other.overwrite_output_dir) == ("no", True)


def test_dict_and_back() -> None:
    arguments = TrainingArguments("out", evaluation_strategy="epoch", fp16_backend="amp", hub_token="secret")
    values = json.loads(arguments.to_json_string())
    assert (values["eval_strategy"], values["hub_token"], values["fp16_backend"]) == ("epoch", "<HUB_TOKEN>", "amp")
    assert "overwrite_output_dir" not in values
    assert "secret" not in repr(arguments)
    assert TrainingArguments(**values).to_dict() == values
    plain = arguments.to_sanitized_dict()
    assert (plain["train_batch_size"], plain["label_names"]) == (8, "None")


# ---- Command lines and subclasses ----


def test_command_lines_may_use_either_spelling() -> None:
    from transformers import HfArgumentParser

    line = (
        "--output_dir out --evaluation_strategy epoch --per_gpu_train_batch_size 4 --warmup_ratio 0.1 --no_cuda "
        "--overwrite_output_dir --gradient_checkpointing --label_names labels extra --report_to none --logging-steps 7"
    )
    (arguments,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(line.split())
    assert type(arguments) is TrainingArguments
    assert arguments.eval_strategy == "epoch"
    assert (arguments.per_device_train_batch_size, arguments.warmup_steps, arguments.use_cpu) == (4, 0.1, True)
    assert (arguments.overwrite_output_dir, arguments.activation_checkpointing) == (True, True)
    assert (arguments.label_names, arguments.logging_steps) == (["labels", "extra"], 7)
    assert "Highest learning rate" in HfArgumentParser(TrainingArguments).format_help()


def test_a_subclass_may_have_fields_of_its_own() -> None:
    @dataclasses.dataclass
    class Own(TrainingArguments):
        layers: int = 2

    own = Own("out", layers=3, evaluation_strategy="epoch")
    assert (own.layers, own.eval_strategy, own.to_dict()["layers"]) == (3, "epoch", 3)
    with pytest.raises(ConfigError, match="TrainingArguments has no argument 'lyers'"):
        Own("out", lyers=3)

    class WithInit(TrainingArguments):
        def __init__(self, extra: int, **values: Any) -> None:
            super().__init__(**values)
            self.extra = extra

    assert WithInit(extra=1, output_dir="out", no_cuda=True).use_cpu is True


# ---- What is wrong, all at once ----


def test_all_problems_are_reported_at_once() -> None:
    assert problems(
        evalution_strategy="epoch",
        per_device_train_batch_size=2.5,
        learning_rate="5e-5",
        push_to_hub=True,
        load_best_model_at_end=True,
    ) == [
        "TrainingArguments has no argument 'evalution_strategy'. Did you mean 'evaluation_strategy'?",
        "per_device_train_batch_size: expected a whole number, found 2.5.",
        "learning_rate: expected a number, found '5e-5'.",
        f"push_to_hub=True: textune does not have it. {arguments_table()['push_to_hub'].decision.text}",
        "load_best_model_at_end=True needs an eval_strategy that is not 'no': otherwise none is known to be best.",
    ]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (
            {"load_best_model_at_end": True, "eval_strategy": "epoch"},
            "needs eval_strategy and save_strategy to be the same, or save_strategy='best'; found 'epoch' and 'steps'.",
        ),
        (
            {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 200, "save_steps": 500},
            "needs save_steps to be a multiple of eval_steps; found save_steps=500 and eval_steps=200.",
        ),
        (
            {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 0.1, "save_steps": 500},
            "a share of all steps and a number of steps cannot be compared: 500 and 0.1.",
        ),
        ({"save_strategy": "best"}, "save_strategy='best' needs an eval_strategy that is not 'no'"),
        ({"logging_steps": 0}, "logging_strategy='steps' needs logging_steps above 0, found 0."),
        ({"save_steps": 2.5}, "save_steps: expected a whole number of steps or a share below 1, found 2.5."),
        ({"warmup_steps": 2.5}, "warmup_steps: expected a whole number of steps or a share below 1, found 2.5."),
        ({"dataloader_prefetch_factor": 2}, "needs dataloader_num_workers of at least 1, found 0."),
        ({"learning_rate": float("nan")}, "learning_rate: expected at least 0, found nan."),
        ({"learning_rate": float("inf")}, "learning_rate: expected a finite number, found inf."),
        ({"seed": True}, "seed: expected a whole number, found True."),
        ({"lr_scheduler_kwargs": "{bad"}, "lr_scheduler_kwargs: expected an object in JSON, found '{bad'"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "needs an eval_strategy that is not 'no': it follows a metric"),
        ({"lr_scheduler_type": "greedy"}, "Give the Trainer your own: optimizers=(optimizer, schedule)."),
        ({"lr_scheduler_type": "cosin"}, "found 'cosin'. Did you mean 'cosine'?"),
        ({"optim": "lion_8bit"}, "Give the Trainer your own: optimizers=(optimizer, None)."),
        ({"enable_jit_checkpoint": True, "save_only_model": True}, "save_only_model=True keeps nothing to go on from"),
        ({"report_to": ["wandbb"]}, "report_to: expected one of 'none', 'all', 'tensorboard', 'wandb', 'mlflow'"),
    ],
)
def test_contradictions_and_wrong_values(values: dict[str, Any], problem: str) -> None:
    assert any(problem in found for found in problems(**values)), problems(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"eval_steps": 100, "save_steps": 500},
        {"eval_steps": 0.1, "save_steps": 0.3},
        {"eval_steps": 500},
        {"eval_steps": 200, "save_steps": 500, "save_strategy": "best"},
    ],
)
def test_what_goes_together(values: dict[str, Any]) -> None:
    arguments = TrainingArguments("out", load_best_model_at_end=True, eval_strategy="steps", **values)
    assert (arguments.metric_for_best_model, arguments.greater_is_better) == ("loss", False)


def test_what_is_assigned_later_is_checked_later() -> None:
    arguments = TrainingArguments("out")
    arguments.check()
    arguments.push_to_hub = True
    arguments.learning_rate = -1.0
    with pytest.raises(ConfigError) as caught:
        arguments.check()
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["learning_rate", "push_to_hub=True"]


def test_the_metric_that_decides_is_known_wherever_one_is_needed() -> None:
    best = TrainingArguments("out", eval_strategy="epoch", save_strategy="best")
    assert (best.metric_for_best_model, best.greater_is_better) == ("loss", False)
    assigned = TrainingArguments("out", eval_strategy="epoch", save_strategy="epoch")
    assigned.load_best_model_at_end = True
    assigned.check()
    assert (assigned.metric_for_best_model, assigned.greater_is_better) == ("loss", False)
    assigned.metric_for_best_model = "accuracy"
    assigned.check()
    assert assigned.greater_is_better is True
    assigned.metric_for_best_model, assigned.greater_is_better = "error_rate", False
    assigned.check()
    assert assigned.greater_is_better is False, "it was given"
    given = TrainingArguments("out", metric_for_best_model="loss", greater_is_better=False)
    given.metric_for_best_model = "error_rate"
    given.check()
    assert given.greater_is_better is False


def test_assigned_strategies_become_enums() -> None:
    arguments: Any = TrainingArguments("out")
    arguments.eval_strategy, arguments.eval_steps = "steps", 10.0
    arguments.check()
    assert (arguments.eval_strategy.value, arguments.eval_steps) == ("steps", 10)
    assert type(TrainingArguments("out", optim=OptimizerNames.SGD).optim) is str


def test_numbers_of_numpy_become_pythons() -> None:
    values: dict[str, Any] = {
        "learning_rate": np.float32(0.5),
        "max_steps": np.int64(900),
        "logging_first_step": np.bool_(True),
        "warmup_ratio": np.float32(0.25),
        "lr_scheduler_kwargs": {"num_cycles": np.float64(0.5)},
    }
    arguments: Any = TrainingArguments("out", **values)
    arguments.seed = np.int64(1)
    arguments.set_evaluate(batch_size=np.int32(4))
    found = json.loads(arguments.to_json_string())
    assert (found["learning_rate"], found["max_steps"], found["warmup_steps"]) == (0.5, 900, 0.25)
    assert (found["logging_first_step"], found["lr_scheduler_kwargs"]) == (True, {"num_cycles": 0.5})
    assert (type(arguments.seed), type(arguments.per_device_eval_batch_size)) == (int, int)


def test_the_older_name_of_checkpointing_cannot_be_assigned_alone() -> None:
    arguments = TrainingArguments("out")
    arguments.gradient_checkpointing = True
    with pytest.raises(ConfigError, match="differ: assign activation_checkpointing"):
        arguments.check()


def test_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "none", ["none"], []):
        assert TrainingArguments("out", report_to=value).report_to == []
    assert TrainingArguments("out", report_to="wandb").report_to == ["wandb"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "mlflow" or None)
    assert TrainingArguments("out", report_to="all").report_to == ["mlflow"]  # those that are installed


def test_paths_and_defaults() -> None:
    assert TrainingArguments().output_dir == "trainer_output"
    assert TrainingArguments(Path("out")).output_dir == "out"  # type: ignore[arg-type]
    assert TrainingArguments("~/out").output_dir == str(Path("~/out").expanduser())
    assert TrainingArguments("out", resume_from_checkpoint=True).resume_from_checkpoint is True


# ---- The machine ----


def test_arithmetic_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    way_out = "Leave it out, or use bf16=True (bf16_full_eval=True), which the CPU has too."
    for name in ("tf32", "fp16", "fp16_full_eval"):
        assert problems(**{name: True}, use_cpu=True) == [
            f"{name}=True needs a CUDA GPU; this runs on 'cpu'. {way_out}"
        ]
    assert problems(ddp_backend="nccl", use_cpu=True) == [
        "ddp_backend='nccl' needs CUDA GPUs; this runs on 'cpu'. Leave it out."
    ]
    assert TrainingArguments("out", ddp_backend="gloo", use_cpu=True).ddp_backend == "gloo"
    assert problems(fp16=True, bf16=True)[0] == "fp16 and bf16 are both True; choose one of them."
    assert TrainingArguments("out", bf16=True, bf16_full_eval=True, tf32=False, use_cpu=True).bf16 is True


def test_arithmetic_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setenv("LOCAL_RANK", "1")
    arguments = TrainingArguments("out")
    assert (arguments.device, arguments.n_gpu) == (torch.device("cuda", 1), 1)
    assert problems(bf16=True) == [
        "bf16=True needs an Ampere GPU or a newer one; this is Old GPU. Leave it out, or use fp16=True."
    ]
    assert TrainingArguments("out", fp16=True, fp16_full_eval=True, ddp_backend="nccl").fp16 is True
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert TrainingArguments("out", bf16=True, tf32=True).tf32 is True


def test_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.training_args import ParallelMode

    for name, value in (("WORLD_SIZE", "4"), ("RANK", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    arguments = TrainingArguments("out", use_cpu=True, log_level="error", log_level_replica="debug")
    assert (arguments.world_size, arguments.process_index, arguments.local_process_index) == (4, 2, 0)
    assert (arguments.should_log, arguments.should_save) == (True, False)
    assert arguments.get_process_log_level() == logging.ERROR
    arguments.log_on_each_node = False
    assert arguments.should_log is False
    assert arguments.get_process_log_level() == logging.DEBUG
    assert arguments.parallel_mode == ParallelMode.DISTRIBUTED
    assert arguments.local_rank == 0
    with (
        pytest.raises(ConfigError, match="WORLD_SIZE=4 in the environment, but no MASTER_ADDR, MASTER_PORT"),
        arguments.main_process_first(desc="tokenising"),
    ):
        pass


def test_one_process_waits_for_nobody() -> None:
    arguments = TrainingArguments("out", use_cpu=True)
    assert (arguments.world_size, arguments.process_index, arguments.local_rank) == (1, 0, -1)
    with arguments.main_process_first(local=False, desc="tokenising"):
        pass


# ---- set_... ----


def test_the_setters_set_what_transformers_sets() -> None:
    from transformers import TrainingArguments as Theirs

    calls: list[tuple[str, dict[str, Any]]] = [
        ("set_training", {"learning_rate": 1e-4, "batch_size": 32, "gradient_accumulation_steps": 2}),
        ("set_evaluate", {"strategy": "steps", "steps": 100, "delay": 2}),
        ("set_testing", {"batch_size": 16, "loss_only": True}),
        ("set_save", {"strategy": "epoch", "total_limit": 3}),
        ("set_logging", {"strategy": "epoch", "level": "info"}),
        ("set_optimizer", {"name": "adamw_torch", "beta1": 0.8}),
        ("set_lr_scheduler", {"name": "cosine", "warmup_steps": 0.05, "max_steps": 10}),
        ("set_dataloader", {"train_batch_size": 4, "num_workers": 2, "prefetch_factor": 3, "sampler_seed": 5}),
    ]
    for name, values in calls:
        ours, theirs = TrainingArguments("out", use_cpu=True), Theirs("out", use_cpu=True)
        assert getattr(ours, name)(**values) is ours
        getattr(theirs, name)(**values)
        assert type(ours.eval_strategy) is type(theirs.eval_strategy)
        leave_out = {"accelerator_config", "report_to"}  # set_logging of transformers stores the text "none"
        assert {key: value for key, value in ours.to_dict().items() if key not in leave_out} == {
            key: value for key, value in theirs.to_dict().items() if key not in leave_out
        }, name


def test_the_setters_refuse_what_the_class_refuses() -> None:
    arguments = TrainingArguments("out")
    with pytest.raises(ConfigError, match="push_to_hub=True: textune does not have it"):
        arguments.set_push_to_hub("owner/name")
    with pytest.raises(ConfigError, match="learning_rate: expected at least 0, found -1"):
        arguments.set_training(learning_rate=-1)
    assert arguments == TrainingArguments("out")
    assert arguments.set_lr_scheduler(warmup_ratio=0.1).warmup_steps == 0.1
