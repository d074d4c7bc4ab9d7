"""What a command would do, said without doing it: the resolved recipe, sizes, data, and what this machine chooses."""

import torch

from cram.build import check
from cram.config.config import Config
from cram.config.recipe import format_config
from cram.machine.device import device_name, pick_device, pick_precision
from cram.model.backends.choose import choose_backend
from cram.model.count import count_parameters
from cram.optim.schedule import batch_tokens, decay_begins
from cram.planner.memory import training_bytes
from cram.terminal.progress import format_tokens
from cram.training.compilation import kinds_to_try


def print_dry_run(config: Config) -> int:
    """Print the recipe as yaml, and what follows from it here. Nothing is written; returns the exit status 0.

    Errors: CramError for what this machine cannot do.
    """
    check(config)
    print(format_config(config))
    for name, text in [*_sizes(config), *_machine(config)]:
        print(f"{name:<11}{text}")
    return 0


def _sizes(config: Config) -> list[tuple[str, str]]:
    counted = count_parameters(config.model, config.wordpiece.vocab_size)
    kept = training_bytes(counted.total)
    vocabulary = "of the tokenizer given" if config.tokenizer else f"{config.wordpiece.vocab_size:,}"
    return [
        (
            "model",
            f"{config.model.kind}, {config.model.layers} layers of {config.model.width}, vocabulary {vocabulary}: "
            f"{counted.total:,} parameters, {counted.without_embedding:,} of them not in the embedding",
        ),
        ("memory", f"{kept / 1e9:.2f} GB for weights, gradients and optimizer; activations come on top"),
        ("update", _update(config)),
        ("data", f"{config.data.source}, rows of {config.data.seq_len}: {_data(config)}"),
    ]


def _update(config: Config) -> str:
    batch = config.batch
    ramp = "" if batch.start_tokens is None else f", from {batch.start_tokens:,} on, reached at {batch.ramp:.0%}"
    decay = decay_begins(config.schedule)
    return f"{batch.tokens:,} tokens{ramp}; the learning rate ({config.schedule.kind}) falls from {decay:.0%} on"


def _data(config: Config) -> str:
    """What the budget will need, where it can be told before the speed is known."""
    budget = config.parse_budget()
    if budget.clock == "tokens":
        return f"{format_tokens(budget.limit)} are needed"
    if budget.clock == "steps":
        size = batch_tokens(config.batch)
        steps = int(budget.limit)
        # The mean batch over the schedule, at no more than a thousand places.
        places = [place / min(steps, 1000) for place in range(min(steps, 1000))]
        return f"about {format_tokens(steps * sum(map(size, places)) / len(places))} are needed for {steps:,} updates"
    return f"what {config.budget} need depends on the speed, which is measured when training begins"


def _machine(config: Config) -> list[tuple[str, str]]:
    device = pick_device(config.device)
    precision = pick_precision(config.precision, device)
    compiled = " or else ".join(kinds_to_try(config.compile, device, config.parse_budget())) or "nothing"
    return [
        ("device", f"{device}: {device_name(device)}, {config.threads or torch.get_num_threads()} CPU threads"),
        ("precision", str(precision).removeprefix("torch.")),
        ("attention", choose_backend(config.model.attention, device, precision)),
        ("compiled", compiled),
        ("run", f"{config.run}, budget {config.budget}, seed {config.seed}"),
    ]
