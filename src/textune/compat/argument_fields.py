"""The fields of `TrainingArguments`: names, types and defaults as in transformers, and what textune does with each.

The first part is the whole of `transformers.TrainingArguments` 5.23, in its order. The second holds what releases
2.11 to 5.22 had besides; the list was made from `training_args.py` of 2.11.0, 3.0.2, 3.1.0, 3.5.1, 4.0.1, 4.2.2, 4.5.1,
4.10.3, 4.18.0, 4.24.0, 4.30.2, 4.34.1, 4.40.2, 4.43.4, 4.46.3, 4.51.3, 4.53.3, 4.57.1, 5.0.0 and 5.12.0. Names that
only got another name are in `textune.compat.argument_table.RENAMED`.

Each annotation carries its `Decision`: honoured, no effect and why, or refused and what to use instead. The class, the
checks and the table of the migration guide are made from these.
"""

# ruff: noqa: RUF036 - HfArgumentParser reads a value as the first or second member of a union: their order counts.
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

Status = Literal["honoured", "no effect", "refused"]

HONOURED: Status = "honoured"
NO_EFFECT: Status = "no effect"
REFUSED: Status = "refused"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What textune does with a field.

    Attributes:
        status: "honoured": it has its meaning. "no effect": any value is taken, since its meaning is void here.
            "refused": only the default is taken.
        text: the meaning, the reason, or what to use instead.
        choices: the values that are taken; () for all of the type.
        instead: what to use in place of a value that is not among the choices.
        low: smallest value.
        below: the value must be smaller than this.
    """

    status: Status
    text: str
    choices: tuple[str, ...] = ()
    instead: str = ""
    low: float | None = None
    below: float | None = None


def honoured(
    text: str,
    *,
    choices: tuple[str, ...] = (),
    instead: str = "",
    low: float | None = None,
    below: float | None = None,
) -> Decision:
    """A field with its meaning in transformers, which `text` says in short."""
    return Decision(status=HONOURED, text=text, choices=choices, instead=instead, low=low, below=below)


def no_effect(because: str, *, choices: tuple[str, ...] = (), instead: str = "", low: float | None = None) -> Decision:
    """A field whose meaning is void here."""
    return Decision(status=NO_EFFECT, text=because, choices=choices, instead=instead, low=low)


def refused(instead: str) -> Decision:
    """A field of which only the default is taken; `instead` says what to use."""
    return Decision(status=REFUSED, text=instead)


INTERVALS = ("no", "steps", "epoch")
TRACKERS = ("tensorboard", "wandb", "mlflow")
LOG_LEVELS = ("debug", "detail", "info", "warning", "error", "critical", "passive")
BY_METRIC = "reduce_lr_on_plateau"
SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    BY_METRIC,
)

_OWN_OPTIMIZER = "Give the Trainer your own: optimizers=(optimizer, None)."
_COMPILE = "Compilation gains nothing measurable here yet; leave it out."
_FSDP = "An encoder fits on one device; use several processes, each with the whole model: torchrun --nproc-per-node N."
_TPU = "textune runs on CPUs and GPUs."
_PUSH = "Upload `output_dir` when training is done: hf upload OWNER/NAME OUTPUT_DIR."
_HUB_ONLY = "only `push_to_hub` reads it, which is refused"
_TRACKIO_ONLY = "it is for trackio, which `report_to` does not take"
_ONE_REDUCTION = "gradients of several processes are added up in one piece, without torch's DistributedDataParallel"
_ACCELERATE = "textune does not use accelerate. Batches are per process; leave it out."
_NATIVE = "there is one implementation, torch's; NVIDIA's apex is not used"
_HALF_BACKENDS = ("auto", "amp", "cuda_amp", "cpu_amp", "apex")
_CHECKPOINTING = (
    "Arguments of `torch.utils.checkpoint.checkpoint`, and transformers' two: `every_n_layers`, 2 for every second "
    "layer, and `offload`, True to keep what is saved in main memory."
)
_SCRIPT = "Kept for the script's own use, as in transformers; the Trainer does not read it."


@dataclass
class ArgumentFields:
    """Nothing but fields. `TrainingArguments` checks and completes them."""

    # Output
    output_dir: Annotated[
        str | None,
        honoured("Folder for checkpoints, trainer_state.json and the saved model; `trainer_output` if None."),
    ] = None

    # Duration and batch size
    per_device_train_batch_size: Annotated[
        int, honoured("Examples in one forward and backward pass of each process.", low=1)
    ] = 8
    num_train_epochs: Annotated[float, honoured("Passes through the training data; may be a fraction.", low=0)] = 3.0
    max_steps: Annotated[
        int, honoured("Optimiser steps in all; from 1 on it takes the place of `num_train_epochs`.", low=-1)
    ] = -1

    # Learning rate
    learning_rate: Annotated[float, honoured("Highest learning rate of the schedule.", low=0)] = 5e-5
    lr_scheduler_type: Annotated[
        str,
        honoured(
            "Shape of the learning rate.",
            choices=SCHEDULES,
            instead="Give the Trainer your own: optimizers=(optimizer, schedule).",
        ),
    ] = "linear"
    lr_scheduler_kwargs: Annotated[
        dict[str, Any] | str | None, honoured("Further values for the schedule, such as num_cycles: a dict or JSON.")
    ] = None
    warmup_steps: Annotated[
        float, honoured("Steps of the linear rise from zero; below 1: share of all steps.", low=0)
    ] = 0

    # Optimiser
    optim: Annotated[
        str,
        honoured(
            "AdamW by any of the first three names, or another with transformers' defaults.",
            choices=("adamw_torch_fused", "adamw_torch", "adamw_hf", "sgd", "adafactor", "rmsprop", "adagrad"),
            instead=_OWN_OPTIMIZER,
        ),
    ] = "adamw_torch_fused"
    optim_args: Annotated[str | None, refused(_OWN_OPTIMIZER)] = None
    weight_decay: Annotated[float, honoured("Decoupled weight decay; not on biases and norms.", low=0)] = 0.0
    adam_beta1: Annotated[float, honoured("Decay of AdamW's mean of gradients.", low=0, below=1)] = 0.9
    adam_beta2: Annotated[float, honoured("Decay of AdamW's mean of squared gradients.", low=0, below=1)] = 0.999
    adam_epsilon: Annotated[float, honoured("AdamW's guard against division by zero.", low=0)] = 1e-8
    optim_target_modules: Annotated[None | str | list[str], refused(_OWN_OPTIMIZER)] = None

    # Regularisation and stability
    gradient_accumulation_steps: Annotated[
        int, honoured("Passes whose gradients make one step; the loss is divided by true counts.", low=1)
    ] = 1
    average_tokens_across_devices: Annotated[
        bool,
        honoured("The loss is divided by the count over all processes; False: the mean over processes of their means."),
    ] = True
    max_grad_norm: Annotated[float, honoured("Norm the gradient is clipped to; 0: no clipping.", low=0)] = 1.0
    label_smoothing_factor: Annotated[
        float,
        honoured(
            "Probability spread evenly over all labels; not used, with a warning, where `compute_loss_func` gives the "
            "loss.",
            low=0,
            below=1,
        ),
    ] = 0.0

    # Mixed precision
    bf16: Annotated[bool, honoured("bfloat16 arithmetic with fp32 masters, on GPUs and on the CPU.")] = False
    fp16: Annotated[bool, honoured("float16 arithmetic with fp32 masters and loss scaling, on CUDA GPUs.")] = False
    bf16_full_eval: Annotated[bool, honoured("Evaluation and prediction in bfloat16, but not while training.")] = False
    fp16_full_eval: Annotated[bool, honoured("The same in float16, on CUDA GPUs.")] = False
    tf32: Annotated[bool | None, honoured("TF32 products on a CUDA GPU (Ampere or newer); None: torch's default.")] = (
        None
    )

    # Activation checkpointing
    activation_checkpointing: Annotated[
        bool | None, honoured("Compute activations again in the backward pass to save memory.")
    ] = None
    activation_checkpointing_kwargs: Annotated[dict[str, Any] | str | None, honoured(_CHECKPOINTING)] = None
    gradient_checkpointing: Annotated[bool | None, honoured("Older name of `activation_checkpointing`.")] = None
    gradient_checkpointing_kwargs: Annotated[
        dict[str, Any] | str | None, honoured("Older name of `activation_checkpointing_kwargs`.")
    ] = None

    # Compilation and kernels
    torch_compile: Annotated[bool, refused(_COMPILE)] = False
    torch_compile_backend: Annotated[str | None, refused(_COMPILE)] = None
    torch_compile_mode: Annotated[str | None, refused(_COMPILE)] = None
    use_liger_kernel: Annotated[bool, refused("Its kernels are for language models; leave it out.")] = False
    liger_kernel_config: Annotated[
        dict[str, bool] | None, refused("Its kernels are for language models; leave it out.")
    ] = None

    # Further optimisations
    use_cache: Annotated[bool, honoured("Written to `model.config.use_cache` while training.")] = False
    neftune_noise_alpha: Annotated[
        float | None, refused("Noise on embeddings is for instruction tuning; use the model's dropout.")
    ] = None
    torch_empty_cache_steps: Annotated[
        int | None, honoured("Steps between two calls of `torch.cuda.empty_cache()`; no cache on a CPU.", low=1)
    ] = None
    auto_find_batch_size: Annotated[
        bool,
        honoured("Where memory runs out, go on with passes of half as many rows; a step keeps its rows."),
    ] = False

    # Logging
    logging_strategy: Annotated[str, honoured("When the loss is logged.", choices=INTERVALS)] = "steps"
    logging_steps: Annotated[
        float, honoured("Steps between two entries of the log; below 1: share of all steps.", low=0)
    ] = 500
    logging_first_step: Annotated[bool, honoured("Log the first step too.")] = False
    log_on_each_node: Annotated[bool, honoured("One process of each machine logs, not of all machines together.")] = (
        True
    )
    logging_nan_inf_filter: Annotated[
        bool, no_effect("a loss that is not finite ends the run, so there is none to leave out of the log")
    ] = True
    include_num_input_tokens_seen: Annotated[
        str | bool,
        honoured("Log the number of tokens seen, with or without padding.", choices=("all", "non_padding", "no")),
    ] = "no"
    log_level: Annotated[str, honoured("Level of transformers' logger, main process.", choices=LOG_LEVELS)] = "passive"
    log_level_replica: Annotated[
        str, honoured("Level of transformers' logger, other processes.", choices=LOG_LEVELS)
    ] = "warning"
    disable_tqdm: Annotated[bool | None, honoured("No progress bar.")] = None

    # Trackers
    report_to: Annotated[
        None | str | list[str],
        honoured(
            "Trackers, through transformers' own callbacks; 'all' means those of them that are installed.",
            choices=("none", "all", *TRACKERS),
            instead="Others work as callbacks: callbacks=[transformers.integrations.CometCallback()].",
        ),
    ] = "none"
    run_name: Annotated[str | None, honoured("Name of the run for wandb and mlflow.")] = None
    project: Annotated[str, no_effect(_TRACKIO_ONLY)] = "huggingface"
    trackio_space_id: Annotated[str | None, no_effect(_TRACKIO_ONLY)] = None
    trackio_bucket_id: Annotated[str | None, no_effect(_TRACKIO_ONLY)] = None
    trackio_static_space_id: Annotated[str | None | Literal[False], no_effect(_TRACKIO_ONLY)] = None

    # Evaluation
    eval_strategy: Annotated[str, honoured("When to evaluate.", choices=INTERVALS)] = "no"
    eval_steps: Annotated[
        float | None,
        honoured("Steps between two evaluations; below 1: share of all steps; None: `logging_steps`.", low=0),
    ] = None
    eval_delay: Annotated[
        float, honoured("Epochs or steps, as `eval_strategy` counts, before the first evaluation.", low=0)
    ] = 0
    per_device_eval_batch_size: Annotated[int, honoured("Examples scored at once by each process.", low=1)] = 8
    prediction_loss_only: Annotated[bool, honoured("Evaluation gives the loss and nothing else.")] = False
    eval_on_start: Annotated[bool, honoured("Evaluate once before the first step.")] = False
    eval_do_concat_batches: Annotated[
        bool, refused("Predictions are always one array in the order of the data; cut it in pieces yourself.")
    ] = True
    eval_use_gather_object: Annotated[
        bool, refused("Predictions and labels are tensors; return tensors from the model.")
    ] = False
    eval_accumulation_steps: Annotated[
        int | None, no_effect("predictions go to main memory after every batch", low=1)
    ] = None

    # Metrics
    include_for_metrics: Annotated[
        list[str], honoured("What `compute_metrics` gets besides.", choices=("inputs", "loss"))
    ] = field(default_factory=list)
    batch_eval_metrics: Annotated[
        bool, refused("Use evaluate's add_batch in your own loop; a classifier's logits are small, so leave it out.")
    ] = False

    # Saving
    save_only_model: Annotated[
        bool, honoured("Checkpoints hold the model alone, so that training cannot be resumed from them.")
    ] = False
    save_strategy: Annotated[
        str, honoured("When to save a checkpoint; 'best': whenever the metric improves.", choices=(*INTERVALS, "best"))
    ] = "steps"
    save_steps: Annotated[float, honoured("Steps between two checkpoints; below 1: share of all steps.", low=0)] = 500
    save_on_each_node: Annotated[bool, refused("One process writes: put `output_dir` where all machines see it.")] = (
        False
    )
    save_total_limit: Annotated[
        int | None, honoured("How many checkpoints stay, the best among them; 1: last and best; None or 0: all.", low=0)
    ] = None
    enable_jit_checkpoint: Annotated[
        bool,
        honoured(
            "SIGTERM, SIGINT, SIGUSR1 and SIGHUP finish the step, save a checkpoint and end the script with 128 + the "
            "signal's number; a second SIGINT ends it at once."
        ),
    ] = False

    # Hub
    push_to_hub: Annotated[bool, refused(_PUSH)] = False
    hub_token: Annotated[str | None, no_effect(_HUB_ONLY)] = None
    hub_private_repo: Annotated[bool | None, no_effect(_HUB_ONLY)] = None
    hub_model_id: Annotated[str | None, no_effect(_HUB_ONLY)] = None
    hub_strategy: Annotated[
        str, no_effect(_HUB_ONLY, choices=("end", "every_save", "checkpoint", "all_checkpoints"))
    ] = "every_save"
    hub_always_push: Annotated[bool, no_effect(_HUB_ONLY)] = False
    hub_revision: Annotated[str | None, no_effect(_HUB_ONLY)] = None

    # Best model
    load_best_model_at_end: Annotated[bool, honoured("The best checkpoint's weights are the result.")] = False
    metric_for_best_model: Annotated[
        str | None, honoured("Metric that decides, with or without `eval_`; None: loss, where one is needed.")
    ] = None
    greater_is_better: Annotated[
        bool | None, honoured("Whether more of it is better; None: unless its name ends in `loss`.")
    ] = None

    # Resuming
    ignore_data_skip: Annotated[
        bool,
        refused("The place in the data is part of a checkpoint: nothing is skipped step by step, so it costs no time."),
    ] = False
    restore_callback_states_from_checkpoint: Annotated[
        bool, honoured("Callbacks with a `state()` go on with what the checkpoint holds.")
    ] = False

    # Reproducibility
    full_determinism: Annotated[bool, honoured("Deterministic algorithms only (torch), at a cost in speed.")] = False
    seed: Annotated[int, honoured("Seed of everything drawn in training.", low=0)] = 42
    data_seed: Annotated[int | None, honoured("Seed of the order of examples; None: `seed`.", low=0)] = None

    # Hardware and accelerate
    use_cpu: Annotated[bool, honoured("Run on the CPU whatever else there is.")] = False
    accelerator_config: Annotated[dict[str, Any] | str | None, refused(_ACCELERATE)] = None
    parallelism_config: Annotated[str | None, refused(_FSDP)] = None

    # Batches
    dataloader_drop_last: Annotated[bool, honoured("Leave out the last batch where it is not full.")] = False
    dataloader_num_workers: Annotated[int, honoured("Processes that load data, where a DataLoader is used.", low=0)] = 0
    dataloader_pin_memory: Annotated[bool, honoured("Pinned memory for copies to a GPU.")] = True
    dataloader_persistent_workers: Annotated[bool, honoured("Worker processes stay between epochs.")] = False
    dataloader_prefetch_factor: Annotated[int | None, honoured("Batches each worker loads ahead.", low=1)] = None
    dataloader_multiprocessing_context: Annotated[
        str | None, honoured("How worker processes are started.", choices=("fork", "spawn", "forkserver"))
    ] = None
    dataloader_in_order: Annotated[bool, honoured("Workers' batches come in order.")] = True
    remove_unused_columns: Annotated[
        bool, honoured("Columns that are no argument of the model's `forward` are left out.")
    ] = True
    label_names: Annotated[
        list[str] | None, honoured("Keys of the batch that are labels; None: the model's arguments with `label`.")
    ] = None
    train_sampling_strategy: Annotated[
        str,
        honoured(
            "Order of the examples.",
            choices=("random", "sequential", "group_by_length"),
            instead="'group_by_length' saves padding too.",
        ),
    ] = "random"
    length_column_name: Annotated[str, honoured("Column with lengths, for `group_by_length`.")] = "length"

    # Several processes
    ddp_find_unused_parameters: Annotated[bool | None, no_effect(_ONE_REDUCTION)] = None
    ddp_bucket_cap_mb: Annotated[int | None, no_effect(_ONE_REDUCTION, low=1)] = None
    ddp_broadcast_buffers: Annotated[
        bool | None,
        no_effect("buffers are the main process's at the start, in evaluations and checkpoints"),
    ] = None
    ddp_static_graph: Annotated[bool | None, no_effect(_ONE_REDUCTION)] = None
    ddp_backend: Annotated[
        str | None,
        honoured(
            "What carries gradients; None: NCCL between GPUs, gloo elsewhere.",
            choices=("nccl", "gloo"),
            instead="Others are for devices that textune does not use.",
        ),
    ] = None
    ddp_timeout: Annotated[
        int, honoured("Seconds a process waits for the others, but for the main one's preparations.", low=1)
    ] = 1800
    fsdp: Annotated[str | None, refused(_FSDP)] = None
    fsdp_config: Annotated[dict[str, Any] | str | None, refused(_FSDP)] = None
    deepspeed: Annotated[dict[str, Any] | str | None, refused(_FSDP)] = None

    # Debugging
    debug: Annotated[
        str | list[str],
        refused("A loss or gradient that is not finite ends the run with the batch named; leave it out."),
    ] = ""
    skip_memory_metrics: Annotated[
        bool, refused("Read torch.cuda.max_memory_allocated() in a TrainerCallback; leave it True.")
    ] = True

    # For scripts
    do_train: Annotated[bool, honoured(_SCRIPT)] = False
    do_eval: Annotated[bool, honoured(f"{_SCRIPT} True where `eval_strategy` is not 'no'.")] = False
    do_predict: Annotated[bool, honoured(_SCRIPT)] = False
    resume_from_checkpoint: Annotated[
        str | None | Literal[True], honoured(f"{_SCRIPT} Hand it over: trainer.train(resume_from_checkpoint=...).")
    ] = None
    local_rank: Annotated[
        int, honoured("Which of the machine's processes this is, from torchrun's environment; -1 for one alone.")
    ] = -1

    # Before transformers 5.23
    overwrite_output_dir: Annotated[bool, honoured(_SCRIPT)] = False
    logging_dir: Annotated[str | None, honoured("Folder for TensorBoard.")] = None
    include_tokens_per_second: Annotated[bool | None, honoured("train() reports tokens per second too.")] = False
    fp16_opt_level: Annotated[str, no_effect("it is for NVIDIA's apex, which is not used")] = "O1"
    fp16_backend: Annotated[str, no_effect(_NATIVE, choices=_HALF_BACKENDS)] = "auto"
    half_precision_backend: Annotated[str, no_effect(_NATIVE, choices=_HALF_BACKENDS)] = "auto"
    use_mps_device: Annotated[bool, no_effect("an Apple GPU is used where there is one; use_cpu=True avoids it")] = (
        False
    )
    tpu_num_cores: Annotated[int | None, refused(_TPU)] = None
    tpu_metrics_debug: Annotated[bool, refused(_TPU)] = False
    past_index: Annotated[
        int, refused("It is for models that carry a memory from text to text; encoders have none.")
    ] = -1
    sharded_ddp: Annotated[str, refused(_FSDP)] = ""
    fsdp_min_num_params: Annotated[int, refused(_FSDP)] = 0
    fsdp_transformer_layer_cls_to_wrap: Annotated[str | None, refused(_FSDP)] = None
    tp_size: Annotated[int | None, refused(_FSDP)] = 0
    mp_parameters: Annotated[str, refused("SageMaker's model parallelism is not used.")] = ""
    use_legacy_prediction_loop: Annotated[bool, no_effect("there is one prediction loop")] = False
    push_to_hub_model_id: Annotated[str | None, no_effect(_HUB_ONLY)] = None
    push_to_hub_organization: Annotated[str | None, no_effect(_HUB_ONLY)] = None
    push_to_hub_token: Annotated[str | None, no_effect(_HUB_ONLY)] = None
    save_safetensors: Annotated[
        bool | None, refused("Pickled weights are never written: they run code when loaded. Leave it True.")
    ] = True
    jit_mode_eval: Annotated[bool, refused("Evaluation is fast without it; leave it out.")] = False
    use_ipex: Annotated[bool, refused("torch's own oneDNN does the same; leave it out.")] = False
    torchdynamo: Annotated[str | None, refused(_COMPILE)] = None
    ray_scope: Annotated[str | None, refused("There is no search over hyperparameters with Ray; leave it out.")] = (
        "last"
    )
    dispatch_batches: Annotated[bool | None, refused(_ACCELERATE)] = None
    split_batches: Annotated[bool | None, refused(_ACCELERATE)] = None
