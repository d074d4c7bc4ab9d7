"""From a config to objects. This is the one file that puts the chosen parts together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from cram.config.choices import METHODS, OBJECTIVES, OPTIMIZERS
from cram.config.config import Config
from cram.config.optimizer import OptimizerConfig
from cram.data.shards.loader import Loader, TrainingRows
from cram.data.shards.shards import ShardSet
from cram.data.special_tokens import SpecialTokens
from cram.data.tokenizer import check_mask, load_tokenizer
from cram.distributed.ranks import ALONE, Ranks
from cram.errors import CramError
from cram.evaluation.held_out import HeldOutSet
from cram.evaluation.held_out_rows import build_held_out
from cram.evaluation.scores import evaluate
from cram.hub.card import check_card
from cram.machine.device import find_device, is_out_of_memory, pick_device, pick_precision, release_memory
from cram.methods.method import Method, Methods
from cram.model.backends.choose import choose_backend
from cram.model.flop_count import FlopCount
from cram.model.kinds import build_model, new_model
from cram.model.transformer import Transformer
from cram.objectives.objective import Objective, Setting
from cram.objectives.short_rows import ShortRows
from cram.optim.ema_nesterov import EmaNesterov
from cram.optim.groups import ParameterGroup, parameter_groups
from cram.optim.optimizer import Optimizer
from cram.optim.schedule import (
    batch_tokens,
    decay_begins,
    make_others_schedule,
    make_rate_progress,
    make_schedule,
)
from cram.optim.sharding import Rule, ShardedOptimizer
from cram.planner.memory import check_memory
from cram.planner.shape import Shape
from cram.planner.workload import TIMED_PROGRESS, Workload
from cram.reference_time import ExecutedWork, load_table
from cram.run.trackers.tracking import check_tracker
from cram.training.compilation import check_compile
from cram.training.gradients import eagerly, in_evaluation_mode
from cram.training.loss_scale import LossScale
from cram.training.protocols import LoaderProtocol, ObjectiveProtocol, OptimizerProtocol
from cram.training.reference_table import check_reference_table
from cram.training.session import Parts, RunState, UpdateParts
from cram.training.start import loop_config
from cram.training.update_timing import TrialSession, time_update


def build_optimizer(model: torch.nn.Module, config: OptimizerConfig, ranks: Ranks = ALONE) -> OptimizerProtocol:
    """Make the update rule of `optimizer.kind` for the parameters of a model, ahead of the weights if asked for.

    Args:
        ranks: those that train the model, whose weights are equal on all of them.
    """

    def make(groups: list[ParameterGroup]) -> Rule:
        optimizer: Optimizer = OPTIMIZERS[config.kind].load()(groups, config)
        return optimizer if config.ema_nesterov.lookahead is None else EmaNesterov(optimizer, config.ema_nesterov)

    if ranks.alone:
        return make(parameter_groups(model, config))
    return ShardedOptimizer(model, config, make, ranks)


def build_methods(config: Config, others: Sequence[Method] = ()) -> Methods:
    """Make the methods whose group of keys in the config is enabled.

    Args:
        others: methods that no key of the config names.

    Raises:
        CramError: for two methods that change the same point of an update.
    """
    groups = {name: getattr(config, name) for name in METHODS}
    own = [METHODS[name].load()(group, config.seed) for name, group in groups.items() if group.enabled]
    return Methods([*own, *others])


def build_objective(
    config: Config, tokenizer: Tokenizer, vocab_size: int, device: torch.device, ranks: Ranks = ALONE
) -> ObjectiveProtocol:
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
        ranks=ranks,
    )
    objective: Objective = OBJECTIVES[config.objective.kind].load()(config.objective, setting)
    return ShortRows(config.objective, setting, objective) if config.objective.short_rows else objective


def check(config: Config) -> None:
    """Check, before any work is done, that this machine can train a config.

    Raises:
        CramError: naming the key that is impossible here.
    """
    device = find_device(config.device)
    check_card(config.card)
    check_tracker(config.track)
    check_compile(config.compile, device)
    methods = build_methods(config)
    if config.rst.table:
        check_reference_table(config, load_table(config.rst.table), methods)
    choose_backend(config.model.attention, device, pick_precision(config.precision, device))
    if config.model.size == "given":  # a plan chooses only what fits
        check_memory(config, device)
    if config.tokenizer and config.objective.held_out == "masked":
        check_mask(config.tokenizer, config.special)


def build_parts(
    config: Config,
    shards: ShardSet,
    work: ExecutedWork | None = None,
    methods: Sequence[Method] = (),
    ranks: Ranks = ALONE,
) -> Parts:
    """Make all parts of a run, which are the same however far the run has come.

    Args:
        work: counts what the run executes; None for a counter of its own.
        methods: methods that no key of the config names.
        ranks: that share the rows and the optimizer's state.

    Raises:
        CramError: where the data does not suffice for a method.
    """
    device = pick_device(config.device)
    precision = pick_precision(config.precision, device)
    tokenizer = load_tokenizer(shards.tokenizer_path)
    model = build_model(config.model, shards.vocab_size, config.seed, device)
    objective = build_objective(config, tokenizer, shards.vocab_size, device, ranks)
    held_out = build_held_out(
        shards.held_out(), tokenizer, config.data.seq_len, config.evaluation, objective=config.objective.held_out
    )
    loader = Loader(shards, config.seed, config.data.epochs, config.data.order, config.data.subset_tokens)
    chosen = build_methods(config, methods)
    for method in chosen:
        method.check(loader.epoch_rows, max(1, round(batch_tokens(config.batch)(1.0) / config.data.seq_len)))
        method.shape(model)
    return assemble(config, model, objective, loader, held_out, precision, chosen, work, ranks)


def assemble(
    config: Config,
    model: Transformer,
    objective: ObjectiveProtocol,
    loader: LoaderProtocol,
    held_out: HeldOutSet,
    precision: torch.dtype,
    methods: Methods | None = None,
    work: ExecutedWork | None = None,
    ranks: Ranks = ALONE,
) -> Parts:
    """Add to a model and its data what else a run is made of: optimizer, schedules, evaluation.

    Args:
        methods: None for those of the config.
        work: counts what the run executes; None for a counter of its own.
        ranks: that share the optimizer's state.
    """
    work = work or ExecutedWork()
    device = next(model.parameters()).device

    def evaluate_eagerly(rows: HeldOutSet, sharing: Ranks) -> dict[str, Any]:
        # Held-out rows have other shapes than those that training is compiled for.
        with eagerly(), in_evaluation_mode(model):
            return evaluate(model, rows, device, sharing)

    def new_reference(layers: int | None) -> UpdateParts:
        model_config = replace(config.model, layers=layers or config.model.layers)
        model_of_it = build_model(model_config, model.vocab_size, config.seed + 1, device)
        return update_parts(replace(config, model=model_config), model_of_it, objective, work.as_overhead(), ranks)

    optimizer = build_optimizer(model, config.optimizer, ranks)
    return Parts(
        model=model,
        objective=objective,
        optimizer=optimizer,
        methods=build_methods(config) if methods is None else methods,
        work=work,
        loader=loader,
        schedule=make_schedule(config.schedule),
        others_schedule=make_others_schedule(config.schedule),
        rate_progress=make_rate_progress(config.schedule),
        decay_begins=decay_begins(config.schedule),
        batch_tokens=batch_tokens(config.batch),
        held_out=held_out,
        evaluate=evaluate_eagerly,
        flops=FlopCount(config.model, model.vocab_size, config.data.seq_len),
        device=device,
        precision=precision,
        loss_scale=_loss_scale(model, optimizer, precision, ranks),
        seq_len=config.data.seq_len,
        new_reference=new_reference,
    )


def _loss_scale(
    model: Transformer, optimizer: OptimizerProtocol, precision: torch.dtype, ranks: Ranks
) -> LossScale | None:
    """Make the loss scale of fp16, in which small gradients would vanish; None in other precisions."""
    if precision != torch.float16:
        return None
    return LossScale(optimizer.owned(model), next(model.parameters()).device, ranks)


def update_parts(
    config: Config,
    model: Transformer,
    objective: ObjectiveProtocol,
    work: ExecutedWork | None = None,
    ranks: Ranks = ALONE,
) -> UpdateParts:
    """Make what the updates of a model need that is not the run's own."""
    device = next(model.parameters()).device
    precision = pick_precision(config.precision, device)
    optimizer = build_optimizer(model, config.optimizer, ranks)
    return UpdateParts(
        model=model,
        objective=objective,
        optimizer=optimizer,
        device=device,
        precision=precision,
        loss_scale=_loss_scale(model, optimizer, precision, ranks),
        seq_len=config.data.seq_len,
        work=work or ExecutedWork(),
    )


def make_measure(config: Config, shards: ShardSet, seconds: float = 0.3, ranks: int = 1) -> Callable[[Shape], float]:
    """Make a function that measures the seconds of an update of a shape, as a run of `config` would do it.

    It uses the device, precision and threads of the run, rows spread over the data, and the batches of the middle of
    the budget; nothing is compiled. It leaves the loader and torch's generators alone, and frees what it has built. It
    returns infinity for a shape that does not fit into memory, or whose updates need more rows than the data has.

    Args:
        seconds: updates are timed for this long, and at least once.
        ranks: that share the rows of an update; the share of one of them is timed.
    """
    device = pick_device(config.device)
    objective = build_objective(config, load_tokenizer(shards.tokenizer_path), shards.vocab_size, device)
    work = Workload.of(config, shards.vocab_size, device)

    def time_shape(shape: Shape) -> float:
        rows, trial = spread_rows(shards, max(1, work.rows(shape) // ranks)), shape.apply(config)
        session = TrialSession(
            _trial_parts(trial, shards.vocab_size, objective, device),
            loop_config(trial),
            RunState(micro_rows=max(1, work.micro_rows(shape) // ranks)),
        )
        return time_update(session, rows, TIMED_PROGRESS, seconds)

    def measure(shape: Shape) -> float:
        if work.rows(shape) > shards.rows:
            return math.inf
        try:
            return time_shape(shape)
        except CramError:  # one row does not fit
            return math.inf
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return math.inf
        finally:
            release_memory(device)

    return measure


def spread_rows(shards: ShardSet, number: int) -> TrainingRows:
    """Read rows at equal distances, because neighbours may all belong to one long document."""
    index = np.arange(number, dtype=np.int64) * shards.rows // number
    tokens, documents = (part.astype(np.int32) for part in shards.read(index))
    return TrainingRows(tokens, documents, index, np.zeros(number, np.int32))


def _trial_parts(config: Config, vocab_size: int, objective: ObjectiveProtocol, device: torch.device) -> UpdateParts:
    """Make what updates are timed with. The weights are drawn on the device, which is quick, and never trained."""
    with torch.device("meta"):
        model = new_model(config.model, vocab_size)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(config.seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, config.model.init_std, generator=generator)
    return update_parts(config, model, objective)
