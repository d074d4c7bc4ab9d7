"""From a config to objects. This is the one file that puts the chosen parts together."""

from typing import Any

import torch
from tokenizers import Tokenizer

from cram.config.choices import METHODS, OBJECTIVES, OPTIMIZERS
from cram.config.config import Config
from cram.config.training import OptimizerConfig
from cram.data.shards.loader import Loader
from cram.data.shards.shards import ShardSet
from cram.data.special_tokens import SpecialTokens
from cram.data.tokenizer import check_mask, load_tokenizer
from cram.evaluation.held_out import HeldOutSet
from cram.evaluation.held_out_rows import build_held_out
from cram.evaluation.scores import evaluate
from cram.hub.card import check_card
from cram.machine.device import pick_device, pick_precision
from cram.methods.method import Methods
from cram.model.backends.choose import choose_backend
from cram.model.kinds import build_model
from cram.model.transformer import Transformer
from cram.objectives.objective import Setting
from cram.optim.groups import parameter_groups
from cram.optim.schedule import batch_tokens, decay_begins, make_schedule
from cram.planner.memory import check_memory
from cram.training.compilation import check_compile, eagerly
from cram.training.loss_scale import LossScale
from cram.training.protocols import LoaderProtocol, ObjectiveProtocol, OptimizerProtocol
from cram.training.session import Parts


def build_optimizer(model: torch.nn.Module, config: OptimizerConfig) -> OptimizerProtocol:
    """Make the update rule of `optimizer.kind` for the parameters of a model."""
    optimizer: OptimizerProtocol = OPTIMIZERS[config.kind].load()(parameter_groups(model, config), config)
    return optimizer


def build_methods(config: Config) -> Methods:
    """Make the methods whose group of keys in the config is enabled.

    Raises:
        CramError: for two methods that change the same point of an update.
    """
    groups = {name: getattr(config, name) for name in METHODS}
    return Methods([METHODS[name].load()(group) for name, group in groups.items() if group.enabled])


def build_objective(config: Config, tokenizer: Tokenizer, vocab_size: int, device: torch.device) -> ObjectiveProtocol:
    """Make the objective of `objective.kind`. Only a GPU gets batches of a static shape."""
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
    objective: ObjectiveProtocol = OBJECTIVES[config.objective.kind].load()(config.objective, setting)
    return objective


def check(config: Config) -> None:
    """Check, before any work is done, that this machine can train a config.

    Raises:
        CramError: naming the key that is impossible here.
    """
    device = pick_device(config.device)
    check_card(config.card)
    check_compile(config.compile, device)
    choose_backend(config.model.attention, device, pick_precision(config.precision, device))
    check_memory(config, device)
    if config.tokenizer and config.objective.held_out == "masked":
        check_mask(config.tokenizer, config.special)


def build_parts(config: Config, shards: ShardSet) -> Parts:
    """Make all parts of a run, which are the same however far the run has come."""
    device = pick_device(config.device)
    precision = pick_precision(config.precision, device)
    tokenizer = load_tokenizer(shards.tokenizer_path)
    model = build_model(config.model, shards.vocab_size, config.seed, device)
    objective = build_objective(config, tokenizer, shards.vocab_size, device)
    held_out = build_held_out(
        shards.held_out(), tokenizer, config.data.seq_len, config.evaluation, objective=config.objective.held_out
    )
    loader = Loader(shards, config.seed, config.data.epochs, config.data.order)
    return assemble(config, model, objective, loader, held_out, precision)


def assemble(
    config: Config,
    model: Transformer,
    objective: ObjectiveProtocol,
    loader: LoaderProtocol,
    held_out: HeldOutSet,
    precision: torch.dtype,
) -> Parts:
    """Add to a model and its data what else a run is made of: optimizer, methods, schedules, evaluation."""
    device = next(model.parameters()).device

    def evaluate_eagerly(rows: HeldOutSet) -> dict[str, Any]:
        # Held-out rows have other shapes than those that training is compiled for.
        with eagerly():
            return evaluate(model, rows, device)

    return Parts(
        model=model,
        objective=objective,
        optimizer=build_optimizer(model, config.optimizer),
        methods=build_methods(config),
        loader=loader,
        schedule=make_schedule(config.schedule),
        decay_begins=decay_begins(config.schedule),
        batch_tokens=batch_tokens(config.batch),
        held_out=held_out,
        evaluate=evaluate_eagerly,
        device=device,
        precision=precision,
        # Small gradients would vanish in fp16.
        loss_scale=LossScale(model.parameters(), device) if precision == torch.float16 else None,
        seq_len=config.data.seq_len,
    )
