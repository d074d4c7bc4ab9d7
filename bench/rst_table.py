"""`python -m bench.rst_table`: measures a table of reference system time for a recipe's model on this machine."""

import copy
import functools
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from bench.timing import time_alternating
from cram.build import build_objective, spread_rows, update_parts
from cram.command import run_door
from cram.config.config import Config
from cram.config.recipe import read_config, read_words
from cram.config.schema import collect_keys, key
from cram.data.shards.loader import TrainingRows
from cram.data.shards.shards import ShardSet
from cram.data.tokenizer import load_tokenizer
from cram.errors import CramError
from cram.files.atomic import write_atomic
from cram.machine.device import device_name, pick_device, pick_precision, precision_name, set_threads
from cram.model.kinds import build_model
from cram.model.transformer import Transformer
from cram.planner.micro_batch import cpu_micro_rows
from cram.reference_time import FORWARD, OPTIMIZER, TRAINING, ReferenceTimeTable
from cram.training.gradients import accumulate, clip, nats_per_row
from cram.training.session import RunState
from cram.training.start import loop_config
from cram.training.update_timing import TrialSession

ABOUT = """Time forward and backward passes and optimizer steps on this device, and write a table of reference time.

    python -m bench.rst_table data=shards/SHARDFOLDER to=my_machine.json recipe=bert_demo threads=1 \\
        model.size=given model.layers=4 model.width=128 model.heads=2 model.mlp_width=256

The other words are those of a recipe, whose model, row length, precision and update are timed, with 1 to model.layers
blocks and without compilation. A pass has batch.micro_rows rows; on a CPU they can be left out. The optimizer's state
of every depth is held at once. Nothing else should run meanwhile. A run with budget=rst:10m rst.table=my_machine.json
counts by the table."""


@dataclass
class RstTableConfig:
    """What `bench.rst_table` takes beside the words of a recipe."""

    data: str = key("", "shard folder", path=True)
    to: str = key("", "json file to write", path=True)
    name: str | None = key(None, "name of the machine in messages (null: that of the device)")
    optimizers: list[str] = key([], "values of optimizer.kind to time (empty: that of the recipe)")
    rounds: int = key(20, "times that each unit is timed, in turns", "rounds", least=1, most=10**6)


def make_units(
    config: Config, shards: ShardSet, rows: TrainingRows, kinds: Sequence[str]
) -> dict[str, Callable[[], object]]:
    """Make a function for each unit of the table, by `KIND NAME`.

    Args:
        kinds: values of `optimizer.kind`.
    """
    device = pick_device(config.device)
    objective = build_objective(config, load_tokenizer(shards.tokenizer_path), shards.vocab_size, device)
    deepest = build_model(config.model, shards.vocab_size, config.seed, device)
    units: dict[str, Callable[[], object]] = {}
    for layers in range(1, config.model.layers + 1):
        model = take_blocks(deepest, layers)
        for kind in kinds:
            trial = replace(config, optimizer=replace(config.optimizer, kind=kind))
            session = TrialSession(
                update_parts(trial, model, objective), loop_config(trial), RunState(micro_rows=len(rows.tokens))
            )
            units[f"{OPTIMIZER} {kind}/{layers}"] = functools.partial(_step, session)
        # Passes do not depend on the optimizer: the last one's session serves.
        units[f"{TRAINING} {layers}"] = functools.partial(_train, session, rows)
        units[f"{FORWARD} {layers}"] = functools.partial(nats_per_row, session, rows, 0.5)
        _train(session, rows)  # makes the gradients that the first step needs
    return units


def take_blocks(model: Transformer, layers: int) -> Transformer:
    """Make a model of the first blocks of another one. It shares the weights, so that all depths fit into memory."""
    shallow = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    shallow.blocks = shallow.blocks[:layers]
    return shallow


def _train(session: TrialSession, rows: TrainingRows) -> None:
    """Add gradients of a micro-batch; a step does not take them away, so that it always finds some."""
    accumulate(session, rows, 0.5)


def _step(session: TrialSession) -> None:
    """Clip and update, as `cram.training.loop.update` does. A rate of zero leaves the weights as they are."""
    parts = session.parts
    finite = clip(session, next(parts.model.parameters()).sum()).finite
    parts.optimizer.step(0.0, 0.5, finite)


def choose_micro_rows(recipe: Config, device: torch.device) -> int:
    """Return the rows of a timed pass: `batch.micro_rows`, or on a CPU what a run would take.

    Raises:
        CramError: a GPU needs `batch.micro_rows`, because what fits depends on its memory.
    """
    if recipe.batch.micro_rows:
        return recipe.batch.micro_rows
    if device.type != "cpu":
        raise CramError("batch.micro_rows= is needed on a GPU: the micro-batch of the runs that count by the table.")
    return cpu_micro_rows(max(1, recipe.batch.tokens // recipe.data.seq_len), recipe.data.seq_len)


def measure_table(config: RstTableConfig, recipe: Config, kinds: Sequence[str]) -> ReferenceTimeTable:
    """Time all units in turns, and make the table of their medians.

    Args:
        kinds: values of `optimizer.kind`.

    Raises:
        CramError: more blocks did not take more time, because something else ran, or the rows have another length.
    """
    shards, device = ShardSet.open(config.data), pick_device(recipe.device)
    if shards.seq_len != recipe.data.seq_len:
        raise CramError(
            f"{config.data} has rows of {shards.seq_len} tokens, and data.seq_len={recipe.data.seq_len}. "
            f"Add data.seq_len={shards.seq_len}, or take other shards."
        )
    threads = set_threads(recipe.threads)
    micro_rows = choose_micro_rows(recipe, device)
    units = make_units(recipe, shards, spread_rows(shards, micro_rows), kinds)
    seconds: dict[str, dict[str, float]] = {}
    for unit, times in time_alternating(units, config.rounds, device).items():
        kind, name = unit.split()
        seconds.setdefault(kind, {})[name] = round(statistics.median(times), 7)
    precision = precision_name(pick_precision(recipe.precision, device))
    table = ReferenceTimeTable(
        machine=config.name or device_name(device),
        model={name: getattr(recipe.model, name) for name in ("kind", "width", "heads", "mlp_width")},
        seq_len=shards.seq_len,
        micro_rows=micro_rows,
        seconds=seconds,
        vocab_size=shards.vocab_size,
        note=f"medians of {config.rounds} rounds, {precision}, threads: {threads}, torch {torch.__version__}",
    )
    table.check_monotonic()
    return table


def main(words: list[str]) -> None:
    """Measure and write the table.

    Raises:
        CramError: `data=` or `to=` is missing, a word is wrong, or the table cannot be used.
    """
    own = [word for word in words if word.partition("=")[0] in collect_keys(RstTableConfig)]
    config = read_words(RstTableConfig, own)
    if not config.data or not config.to:
        raise CramError("data= and to= are needed: a shard folder, and the json file to write.")
    recipe_words = [word for word in words if word not in own]
    recipe = read_config(recipe_words)
    if recipe.model.size == "auto":
        raise CramError("A table is for one shape: add model.size=given and the shape.")
    kinds = config.optimizers or [recipe.optimizer.kind]
    for kind in kinds:
        read_config([*recipe_words, f"optimizer.kind={kind}"])  # refuses an unknown kind
    table = measure_table(config, recipe, kinds)
    write_atomic(Path(config.to), (json.dumps(asdict(table), indent=1) + "\n").encode())
    print(f"{config.to}: {table.machine}, {table.micro_rows} rows, {recipe.model.layers} blocks")


if __name__ == "__main__":
    run_door(main, RstTableConfig, ABOUT)
