"""From `model.size=auto` to a shape: what this machine, this text and this budget allow."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cram.budget import Budget
from cram.build import make_measure
from cram.clock import Clock
from cram.config.commands import PlannerConfig
from cram.config.config import Config
from cram.config.planned import give_values
from cram.config.recipe import YAML_ENDINGS, format_config
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.shards.epochs import count_epoch_rows
from cram.data.shards.shards import ShardSet
from cram.data.tokenizer import load_tokenizer
from cram.errors import CramError
from cram.evaluation.baselines import unigram_nats
from cram.evaluation.held_out_rows import build_held_out
from cram.files.atomic import write_atomic
from cram.machine.device import device_name, pick_device, pick_precision, precision_name, set_threads
from cram.machine.host import cores
from cram.model.count import count_parameters
from cram.planner.cost_model import CostModel, datasheet_cost, kept_cost
from cram.planner.ladder import Pins, shape_ladder
from cram.planner.loss_law import LossLaw, find_law
from cram.planner.memory import training_bytes
from cram.planner.picture import draw_plan
from cram.planner.plan import TOKENS_PER_PARAMETER, UNIGRAM, Plan, Size, make_plan, seconds_past_unigram
from cram.planner.plan_file import WrittenPlan, write_plan_file
from cram.planner.plan_report import describe_choice, print_plan_table
from cram.planner.search import search_plan
from cram.planner.settings import planned_values
from cram.planner.shape import Shape
from cram.planner.throughput import TimedShape, spread_shapes, time_shapes
from cram.planner.workload import Workload
from cram.terminal.progress import format_tokens
from cram.training.threads import numbers_to_try, pick_threads

TIMED_HERE = "timed in this run"
PASSES = 4  # about so many updates does it take to time a shape


@dataclass(frozen=True)
class Setting:
    """What plans of a config have in common, whatever their budget.

    Attributes:
        work: the config, with `model.size=auto`, the vocabulary and the device.
        shapes: that fit into memory.
        available: positions that the data suffices for, all epochs together; None if unknown.
        unigram: nats per token of the unigram baseline; None if unknown.
        law: predicts the loss; None where no fit suits the config.
    """

    work: Workload
    shapes: tuple[Shape, ...]
    available: int | None
    unigram: float | None
    law: LossLaw | None

    @classmethod
    def here(cls, config: Config, shards: ShardSet, device: torch.device, ranks: int = 1) -> "Setting":
        """Collect it for a config, its data, a device of this machine, and so many ranks."""
        work = Workload.of(config, shards.vocab_size, device)
        rows = count_epoch_rows(shards, config.data.subset_tokens) * config.data.epochs / config.objective.reading
        ladder = shape_ladder(config.model.kind, device.type, config.data.seq_len, _pins(config), ranks)
        held_out = build_held_out(
            shards.held_out(),
            load_tokenizer(shards.tokenizer_path),
            config.data.seq_len,
            config.evaluation,
            objective=config.objective.held_out,
        )
        return cls(
            work=work,
            shapes=tuple(shape for shape in ladder if work.fits(shape)),
            available=int(rows * shards.seq_len),
            unigram=unigram_nats(shards.token_counts(), held_out.labels),
            law=find_law(config),
        )

    @classmethod
    def of_card(cls, config: Config) -> "Setting":
        """Collect it for a GPU that is not here: its memory and the data are unknown."""
        work = Workload(config, config.wordpiece.vocab_size, "cuda")
        ladder = shape_ladder(config.model.kind, "cuda", config.data.seq_len, _pins(config))
        return cls(work, tuple(ladder), available=None, unigram=None, law=find_law(config))

    def plan(self, budget: Budget, cost: CostModel) -> Plan:
        """Plan a budget.

        Args:
            budget: what training may spend.
            cost: seconds of an update of a shape.

        Raises:
            CramError: the budget is too small for one update, or no shape fits into memory.
        """

        def seconds_of(shape: Shape) -> tuple[float, bool]:
            return shape.batch_tokens / cost.tokens_per_second(shape), shape in cost.timed

        ratio = TOKENS_PER_PARAMETER[self.work.config.objective.held_out]
        return make_plan(self.shapes, self._size_of, seconds_of, budget, self.available, self.law, ratio)

    def _size_of(self, shape: Shape) -> Size:
        counts = count_parameters(shape.apply(self.work.config).model, self.work.vocab_size)
        # Without a device the micro-batch is unknown, and what it takes.
        memory = training_bytes(counts.total) if self.work.memory is None else self.work.memory_bytes(shape)
        return Size(counts.total, counts.without_embedding, memory)


def _pins(config: Config) -> Pins:
    """The parts of the shape that the user has set."""
    kept, model = config.plan.keep, config.model
    return Pins(
        layers=model.layers if "model.layers" in kept else None,
        width=model.width if "model.width" in kept else None,
        heads=model.heads if "model.heads" in kept else None,
        mlp_width=model.mlp_width if "model.mlp_width" in kept else None,
        batch_tokens=config.batch.tokens if "batch.tokens" in kept else None,
    )


def plan_run(config: Config, shards: ShardSet, clock: Clock, ranks: int = 1) -> Config:
    """Plan a run whose config has `model.size=auto`, and print the plan.

    For a budget of time, shapes are timed until the choice stands or half of `plan.probe_share` is spent; the other
    half is for what training measures itself. The plan of a budget in tokens or updates does not depend on the machine.

    Args:
        config: of the run.
        shards: its data.
        clock: of the run, which is charged for the timing.
        ranks: that share each update; this one times its share, without what they exchange.

    Returns:
        The config with every number given, and with predictions under `plan.*`.

    Raises:
        CramError: where no shape or no update is possible.
    """
    device = pick_device(config.device)
    setting = Setting.here(config, shards, device, ranks)
    kept = kept_cost(setting.work, precision_name(pick_precision(config.precision, device)))
    if clock.budget.clock != "wall":
        plan = setting.plan(clock.budget, kept)
        print(describe_choice(plan, setting.unigram, 0), flush=True)
        return give_plan(setting, plan, kept, config.budget, device_name(device))
    share = config.plan.probe_share
    budget = Budget("wall", (1 - share) * clock.budget.limit)
    with clock.account("probe"):
        began = time.monotonic()
        measure = make_measure(config, shards, ranks=ranks)
        if config.threads is None and device.type == "cpu" and ranks == 1:
            _choose_threads(measure, setting.plan(budget, kept).chosen.shape)
        plan, timed = search_plan(
            lambda timed: setting.plan(budget, kept.adapted(timed, TIMED_HERE)),
            lambda shape: TimedShape(shape, measure(shape), setting.work.share()),
            lambda candidate: time.monotonic() - began + PASSES * candidate.seconds > 0.5 * share * clock.budget.limit,
        )
    cost = kept.adapted(timed, TIMED_HERE)
    print(describe_choice(plan, setting.unigram, len(timed)), flush=True)
    warn_of_unigram(setting, plan, budget, cost)
    return give_plan(setting, plan, cost, config.budget, device_name(device))


def _choose_threads(measure: Callable[[Shape], float], shape: Shape) -> None:
    """Set the number of CPU threads with which an update of a shape is quickest; training measures them again."""
    seconds = {}
    for threads in numbers_to_try(cores()):
        set_threads(threads)
        seconds[threads] = measure(shape)
    set_threads(pick_threads(seconds))


def plan_notes(config: Config) -> list[str]:
    """Describe how a run departs from the plan in its recipe: another device, another budget."""
    here, plan = device_name(pick_device(config.device)), config.plan
    notes = []
    if plan.device is not None and plan.device != here:
        notes.append(f"the plan was made for {plan.device}, and this is {here}: its predictions may not hold.")
    if plan.budget is not None and plan.budget != config.budget:
        notes.append(f"the plan was made for budget={plan.budget}, and this is budget={config.budget}.")
    return notes


def probe_again(config: Config, shards: ShardSet, ranks: int = 1) -> float | None:
    """Time an update as the plan of a run did, to tell how far the machine has changed since; None without a plan."""
    if config.plan.update_seconds is None:
        return None
    return make_measure(config, shards, ranks=ranks)(Shape.of(config))


def warn_of_unigram(setting: Setting, plan: Plan, budget: Budget, cost: CostModel) -> None:
    """Print that a run will not get past the unigram baseline, where that is predicted, and the budget that would."""
    if not plan.by_law or plan.chosen.predicted < UNIGRAM:
        return
    longer = seconds_past_unigram(lambda seconds: setting.plan(Budget("wall", seconds), cost), budget.limit)
    remedy = f"about budget={longer:.0f}s would" if longer else "no budget that the fit covers would"
    print(f"this budget is not expected to get past the unigram baseline on this machine; {remedy}.", flush=True)


def give_plan(setting: Setting, plan: Plan, cost: CostModel, budget: str, device: str) -> Config:
    """Give the config of a setting the numbers of a plan, and its predictions.

    Args:
        setting: with the config.
        plan: the choice.
        cost: which has timed the choice, or predicts its time.
        budget: that it was made for, as in a recipe.
        device: name of the device.
    """
    chosen, whole = plan.chosen, Budget.parse(budget)
    nats = chosen.predicted * setting.unigram if plan.by_law and setting.unigram else None
    of_time = whole.clock == "wall"
    predictions: dict[str, Any] = {
        "plan.budget": budget,
        "plan.device": device,
        "plan.tokens_per_second": round(chosen.tokens_per_second, 1) if of_time else None,
        "plan.update_seconds": float(f"{cost.predict(chosen.shape):.4g}") if of_time else None,
        "plan.tokens": chosen.tokens,
        "plan.updates": chosen.updates,
        "plan.nats": None if nats is None else round(nats, 4),
    }
    begins_causal = setting.work.config.objective.begins_causal
    values = planned_values(chosen.shape, chosen.tokens, whole.limit if of_time else None, begins_causal)
    return give_values(setting.work.config, values | predictions)


def print_plan(command: PlannerConfig, config: Config) -> int:
    """Plan a recipe for this machine, or for a card by its datasheet; print the plan and write what is asked for.

    Args:
        command: the keys of `cram.plan`.
        config: the recipe, with `model.size=auto`.

    Returns:
        The exit status 0.

    Raises:
        CramError: the recipe, its data or the card do not allow a plan.
    """
    budget = config.parse_budget()
    if budget.clock != "wall":
        raise CramError(f"budget={config.budget}: a plan needs a budget of time, such as 75s, 10m or 24h.")
    if command.to and not command.to.endswith(YAML_ENDINGS):
        raise CramError(f"to={command.to}: a plan is written as a recipe. Give it a name that ends in .yaml.")
    if command.card:
        setting, device = Setting.of_card(config), command.card
        cost = datasheet_cost(setting.work, command.card, command.mfu)
    else:
        setting, cost, device = _time_here(command, config)
    plan = setting.plan(budget, cost)
    print(cost.origin if cost.error is None else f"{cost.origin}; error at shapes left out: {cost.error:.1%}")
    print_plan_table(plan, setting.unigram, setting.available)
    print(describe_choice(plan, setting.unigram, len(cost.timed)))
    warn_of_unigram(setting, plan, budget, cost)
    _check_data(plan, setting)
    picture = command.picture or (str(Path(command.to).with_suffix(".png")) if command.to else None)
    written = [] if picture is None else [picture]
    if command.to:
        recipe = give_plan(setting, plan, cost, config.budget, device)
        beside = write_plan_file(
            Path(command.to),
            WrittenPlan(plan, config.budget, device, cost.origin, cost.error, setting.unigram, setting.available),
        )
        write_atomic(Path(command.to), format_config(recipe).encode())
        written = [command.to, str(beside), *written]
    if picture:
        draw_plan(plan, setting.unigram, Path(picture))
    if written:
        print(f"written: {', '.join(written)}")
    return 0


def _time_here(command: PlannerConfig, config: Config) -> tuple[Setting, CostModel, str]:
    """Time shapes of the ladder on this machine and fit the cost model through them."""
    device = pick_device(config.device)
    shards = prepare_shards(config.data, TokenizerSource(config.tokenizer, config.wordpiece, config.special))
    shards.verify()
    threads = set_threads(config.threads)
    setting = Setting.here(config, shards, device)
    precision = precision_name(pick_precision(config.precision, device))
    kept = kept_cost(setting.work, precision)
    name = f"{device_name(device)}, {precision}, {threads} CPU threads"
    spread = spread_shapes(setting.shapes, command.shapes)
    print(f"{name}: timing {len(spread)} of {len(setting.shapes)} shapes", flush=True)
    timed = time_shapes(
        spread,
        make_measure(config, shards),
        command.seconds * len(spread),
        setting.work.share(),
        expected=kept.predict,
    )
    return setting, kept.adapted(timed, f"timed on {name}"), device_name(device)


def _check_data(plan: Plan, setting: Setting) -> None:
    """Check that the data holds what the plan needs.

    Raises:
        CramError: where it does not.
    """
    chosen, available = plan.chosen, setting.available
    if available is not None and chosen.needed > available:
        epochs = -(-chosen.needed // (available // setting.work.config.data.epochs))
        raise CramError(
            f"data.source={setting.work.config.data.source} holds {format_tokens(available)} tokens and the plan needs "
            f"{format_tokens(chosen.needed)}: give more text, allow data.epochs={epochs}, or choose a shorter budget."
        )
