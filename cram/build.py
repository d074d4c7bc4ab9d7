"""From a config to objects: the one file that knows every choice."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from cram.clock import Clock, parse_duration
from cram.config.choices import OBJECTIVES, OPTIMIZERS
from cram.config.config import Config
from cram.config.model import ModelConfig
from cram.config.training import EvaluationConfig, OptimizerConfig
from cram.data.shards.loader import Loader
from cram.data.shards.shards import ShardSet
from cram.data.special import SpecialTokens
from cram.data.tokenizer import check_mask, load_tokenizer
from cram.errors import CramError
from cram.evaluation.held_out import (
    HeldOutDocument,
    HeldOutSet,
    MaskRule,
    evaluate,
    make_causal_held_out,
    make_held_out,
)
from cram.files.tensors import check_tensors, count_rows, read_tensors
from cram.hub.card import check_card
from cram.machine.device import pick_device, pick_precision, set_threads, total_memory
from cram.methods.averaging import Averaging
from cram.methods.method import Method
from cram.model.backends.choose import choose_backend
from cram.model.count import count_parameters, flops_per_position
from cram.model.kinds import new_model
from cram.model.transformer import Transformer
from cram.objectives.objective import Setting
from cram.optim.groups import parameter_groups
from cram.optim.schedule import batch_tokens, make_schedule
from cram.run.checkpoint import Checkpoints
from cram.run.files import HELD_OUT, TOKENIZER, WEIGHTS, checked, read_receipt
from cram.run.metrics import Metrics
from cram.training.compilation import check_compile, eagerly
from cram.training.loss_scale import LossScale
from cram.training.session import Objective, Optimizer, Session


@dataclass(frozen=True)
class Parts:
    """What a run is made of before it has a history: the same whether it starts or resumes."""

    model: Transformer
    objective: Objective
    optimizer: Optimizer
    loader: Loader
    held_out: HeldOutSet
    device: torch.device
    precision: torch.dtype
    threads: int


def build_model(config: ModelConfig, vocab_size: int, seed: int, device: torch.device) -> Transformer:
    """The model with the initial weights of the seed, on a device."""
    model = new_model(config, vocab_size)
    model.initialise(seed)
    return model.to(device)


def build_optimizer(model: torch.nn.Module, config: OptimizerConfig) -> Optimizer:
    """The update rule of `optimizer.kind` for a model's parameters."""
    optimizer: Optimizer = OPTIMIZERS[config.kind].load()(parameter_groups(model, config), config)
    return optimizer


def build_methods(config: Config) -> list[Method]:
    """The methods that the config asks for."""
    return [] if config.averaging.start is None else [Averaging(config.averaging)]


def build_objective(config: Config, tokenizer: Tokenizer, vocab_size: int, device: torch.device) -> Objective:
    """The objective of `objective.kind`; only a GPU is given batches of a static shape."""
    special = SpecialTokens.of(tokenizer)
    setting = Setting(
        special=special.ids(),
        pad_id=special.pad,
        mask_id=special.mask,
        vocab_size=vocab_size,
        seq_len=config.data.seq_len,
        seed=config.seed,
        static_shapes=device.type == "cuda",
    )
    objective: Objective = OBJECTIVES[config.objective.kind].load()(config.objective, setting)
    return objective


def build_held_out(
    documents: Iterable[HeldOutDocument],
    tokenizer: Tokenizer,
    seq_len: int,
    config: EvaluationConfig,
    rule: MaskRule | None = None,
    objective: str = "masked",
) -> HeldOutSet:
    """Held-out rows of some documents for an objective; masked by another rule than the config's where one is given."""
    special = SpecialTokens.of(tokenizer)
    if objective == "causal":
        return make_causal_held_out(documents, tokenizer, special.ids(), special.pad, seq_len, config.tokens)
    assert special.mask is not None
    return make_held_out(
        documents,
        tokenizer,
        special=special.ids(),
        pad_id=special.pad,
        mask_id=special.mask,
        seq_len=seq_len,
        max_tokens=config.tokens,
        rule=rule or MaskRule(config.mask_rate),
    )


def check(config: Config) -> None:
    """Refuse what this machine cannot do before any work is done. Errors: CramError naming the key."""
    device = pick_device(config.device)
    check_card(config.card)
    check_compile(config.compile, device)
    choose_backend(config.model.attention, device, pick_precision(config.precision, device))
    with torch.device("meta"):
        new_model(config.model, config.wordpiece.vocab_size)
    check_memory(config, device)
    if config.tokenizer and config.objective.held_out == "masked":
        check_mask(config.tokenizer, config.special)


def check_memory(config: Config, device: torch.device) -> None:
    """Errors: CramError where the model, or one forward pass of it, takes more than the memory there is for certain."""
    model, there = config.model, total_memory(device)
    if there is None:
        return
    kept = training_bytes(count_parameters(model, config.wordpiece.vocab_size).total)
    if kept > there:
        raise CramError(
            f"model.layers={model.layers}, model.width={model.width}, wordpiece.vocab_size="
            f"{config.wordpiece.vocab_size}: weights, gradients and optimizer take {kept / 1e9:,.1f} GB, and "
            f"{device.type} has {there / 1e9:,.1f} GB. Choose a smaller model."
        )
    rows = min(config.batch.micro_rows or 1, max(1, config.batch.tokens // config.data.seq_len))
    needed = kept + activation_bytes(model, rows, config.data.seq_len)
    if needed > there:
        raise CramError(
            f"data.seq_len={config.data.seq_len}, batch.micro_rows={rows}: with model.layers={model.layers}, "
            f"model.width={model.width}, model.mlp_width={model.mlp_width} one forward pass takes more than "
            f"{needed / 1e9:,.1f} GB, and {device.type} has {there / 1e9:,.1f} GB. Lower one of these."
        )


def activation_bytes(config: ModelConfig, rows: int, seq_len: int) -> int:
    """Bytes that a forward pass keeps for its gradients at the very least.

    Of each block the input, queries, keys and values, and both halves of the MLP, of two bytes each; of explicit
    attention the weights too.
    """
    scores = config.heads * seq_len if config.attention == "softmax" else 0
    return 2 * rows * seq_len * config.layers * (4 * config.width + 2 * config.mlp_width + scores)


def training_bytes(parameters: int) -> int:
    """Bytes of weights, gradients and two moments of so many parameters, fp32 each; activations come on top."""
    return 16 * parameters


def build_parts(config: Config, shards: ShardSet) -> Parts:
    """Everything of a run that does not depend on how far it has come."""
    threads = set_threads(config.threads)
    device = pick_device(config.device)
    tokenizer = load_tokenizer(shards.tokenizer_path)
    model = build_model(config.model, shards.vocab_size, config.seed, device)
    return Parts(
        model=model,
        objective=build_objective(config, tokenizer, shards.vocab_size, device),
        optimizer=build_optimizer(model, config.optimizer),
        loader=Loader(shards, config.seed, config.data.epochs, config.data.order),
        held_out=build_held_out(
            shards.held_out(), tokenizer, config.data.seq_len, config.evaluation, objective=config.objective.held_out
        ),
        device=device,
        precision=pick_precision(config.precision, device),
        threads=threads,
    )


def evaluate_parts(parts: Parts, rows: HeldOutSet) -> dict[str, float]:
    """The figures of a run's model on held-out rows, whose shapes are not those that training is compiled for."""
    with eagerly():
        return evaluate(parts.model, rows, parts.device)


def build_session(
    config: Config,
    parts: Parts,
    clock: Clock,
    metrics: Metrics,
    checkpoints: Checkpoints,
    show: Callable[[float, dict[str, float]], None],
    stop_asked: Callable[[], bool],
) -> Session:
    """A run at its very start."""
    return Session(
        model=parts.model,
        objective=parts.objective,
        optimizer=parts.optimizer,
        methods=build_methods(config),
        loader=parts.loader,
        clock=clock,
        metrics=metrics,
        checkpoints=checkpoints,
        schedule=make_schedule(config.schedule),
        batch_tokens=batch_tokens(config.batch),
        evaluate=lambda: evaluate_parts(parts, parts.held_out),
        show=show,
        device=parts.device,
        precision=parts.precision,
        loss_scale=half_loss_scale(parts),
        seq_len=config.data.seq_len,
        micro_rows=1,
        clip=config.optimizer.clip,
        faults_config=config.faults,
        log_interval=config.log_interval,
        checkpoint_seconds=parse_duration(config.checkpoint.interval, "checkpoint.interval"),
        evaluation_interval=config.evaluation.interval,
        stop_asked=stop_asked,
        threads=parts.threads,
    )


def half_loss_scale(parts: Parts) -> LossScale | None:
    """A loss scale where gradients are of fp16, whose small numbers vanish; None elsewhere."""
    return LossScale(parts.model.parameters(), parts.device) if parts.precision == torch.float16 else None


def model_figures(config: Config, vocab_size: int, predicted_share: float) -> dict[str, Any]:
    """Sizes for the receipt: parameters, and floating-point operations per position."""
    parameters = count_parameters(config.model, vocab_size)
    return {
        "parameters": parameters.total,
        "parameters_without_embedding": parameters.without_embedding,
        "flops_per_position": flops_per_position(config.model, vocab_size, config.data.seq_len, predicted_share),
    }


def load_trained(run: Path, config: Config, device: torch.device) -> tuple[Transformer, Tokenizer]:
    """The model and tokenizer of a finished run. Errors: CramError where a file is missing or damaged."""
    weights, tokenizer = result(run, WEIGHTS), load_tokenizer(result(run, TOKENIZER))
    model = filled_model(config.model, read_tensors(weights), tokenizer, f"{weights}: ")
    return model.to(device), tokenizer


def filled_model(config: ModelConfig, state: dict[str, torch.Tensor], tokenizer: Tokenizer, where: str) -> Transformer:
    """The model with given weights, which must fit the recipe and the tokenizer.

    Errors: CramError that begins with `where` and names a tensor that does not.
    """
    name = "embedding.weight"
    rows, pieces = count_rows(state, name, where), tokenizer.get_vocab_size()
    if rows < pieces:
        raise CramError(f"{where}the tensor {name} has {rows} rows, and the tokenizer has {pieces} tokens.")
    model = new_model(config, rows)
    check_tensors(state, model.state_dict(), where)
    model.load_state_dict(state)
    return model


def load_held_out(run: Path, vocab_size: int) -> HeldOutSet:
    """The held-out rows of a finished run, for a model with so many tokens.

    Errors: CramError where they are missing or damaged, or hold other ids.
    """
    path = result(run, HELD_OUT)
    rows = HeldOutSet.from_file(path)
    rows.check_ids(vocab_size, path)
    return rows


def result(run: Path, name: str) -> Path:
    """The path of a file of a finished run.

    Errors: CramError where the run is not finished, or came to nothing, or the file is not what the run wrote.
    """
    if failed := read_receipt(run).get("failed"):
        raise CramError(f"run={run} has no usable model: {failed}")
    return checked(run, name)
