"""What `--print` shows: the resolved recipe, the sizes, the data it needs, and what this machine would choose."""

import math
from pathlib import Path

from cram.build import check
from cram.config.config import Config
from cram.config.recipe import format_config
from cram.data.preparation.estimate import check_disk, estimate_preparation
from cram.data.preparation.vocabulary import TokenizerSource
from cram.data.text.sources import PYDOCS, open_source
from cram.errors import CramError
from cram.machine.device import device_name, pick_device, pick_precision
from cram.machine.host import cores
from cram.machine.kernels import name_kernels
from cram.model.backends.choose import choose_backend
from cram.model.count import count_parameters
from cram.optim.schedule import batch_tokens, decay_begins
from cram.planner.memory import training_bytes
from cram.terminal.progress import format_tokens
from cram.training.compilation import kinds_to_try

SMALL_TEXT = 20_000_000  # bytes; preparing less takes seconds


def print_dry_run(config: Config) -> int:
    """Print the recipe as yaml, and what follows from it on this machine. Nothing is written.

    Returns:
        The exit status 0.

    Raises:
        CramError: for a recipe that this machine cannot train.
    """
    check(config)
    print(format_config(config))
    for name, text in [*_sizes(config), *_preparation(config), *_machine(config)]:
        print(f"{name:<11}{text}")
    return 0


def _preparation(config: Config) -> list[tuple[str, str]]:
    """Describe what preparing the data takes here; nothing for a small source."""
    data = config.data
    if data.source == PYDOCS:  # it is small, and cleaning it takes longer than the sample of a large source
        return []
    tokenizer = TokenizerSource(config.tokenizer, config.wordpiece, config.special)
    try:
        source = open_source(data.source, data.text_field, data.document, data.on_error, data.encoding)
        estimate = estimate_preparation(source, data, tokenizer, data.processes or cores(), SMALL_TEXT)
        if estimate is None:
            return []
        lines = [("prepare", line) for line in estimate.describe(check_disk(estimate, Path(data.dir)))]
    except CramError as error:
        return [("prepare", f"cannot be estimated: {str(error).splitlines()[0]}")]
    needed, tokens = config.parse_budget(), estimate.tokens * data.epochs
    if needed.clock == "tokens" and estimate.is_whole and tokens < needed.limit:
        shortage = (
            f"the text lasts for about {tokens / needed.limit:.0%} of the budget; give more, or allow data.epochs="
        )
        lines.append(("prepare", f"{shortage}{math.ceil(needed.limit / estimate.tokens)}"))
    return lines


def _sizes(config: Config) -> list[tuple[str, str]]:
    data = ("data", f"{config.data.source}, rows of {config.data.seq_len}: {_data(config)}")
    if config.model.size == "auto":
        kept = f", with {', '.join(config.plan.keep)} as given" if config.plan.keep else ""
        planned = f"{config.model.kind}, planned when training begins{kept}; python -m cram.plan shows the plan"
        return [("model", planned), data]
    parameters = count_parameters(config.model, config.wordpiece.vocab_size)
    memory = training_bytes(parameters.total)
    vocabulary = "of the tokenizer given" if config.tokenizer else f"{config.wordpiece.vocab_size:,}"
    return [
        (
            "model",
            f"{config.model.kind}, {config.model.layers} layers of {config.model.width}, vocabulary {vocabulary}: "
            f"{parameters.total:,} parameters, {parameters.without_embedding:,} of them not in the embedding",
        ),
        ("memory", f"{memory / 1e9:.2f} GB for weights, gradients and optimizer; activations come on top"),
        ("update", _update(config)),
        data,
    ]


def _update(config: Config) -> str:
    batch = config.batch
    ramp = "" if batch.start_tokens is None else f", from {batch.start_tokens:,} on, reached at {batch.ramp:.0%}"
    decay = decay_begins(config.schedule)
    return f"{batch.tokens:,} tokens{ramp}; the learning rate ({config.schedule.kind}) falls from {decay:.0%} on"


def _data(config: Config) -> str:
    """Describe how much data the budget needs, where that does not depend on the speed."""
    budget = config.parse_budget()
    if budget.clock == "tokens":
        return f"{format_tokens(budget.limit)} are needed"
    if budget.clock == "steps" and config.model.size == "given":
        size = batch_tokens(config.batch)
        steps = int(budget.limit)
        # The mean batch over the schedule, sampled at a thousand values of progress at most.
        samples = [sample / min(steps, 1000) for sample in range(min(steps, 1000))]
        return f"about {format_tokens(steps * sum(map(size, samples)) / len(samples))} are needed for {steps:,} updates"
    return f"how much {config.budget} need depends on the speed, which is measured when training begins"


def _machine(config: Config) -> list[tuple[str, str]]:
    device = pick_device(config.device)
    precision = pick_precision(config.precision, device)
    compiled = " or else ".join(kinds_to_try(config.compile, device, config.parse_budget())) or "nothing"
    return [
        ("device", f"{device}: {device_name(device)}, {config.threads or cores()} CPU threads"),
        ("precision", str(precision).removeprefix("torch.")),
        ("attention", choose_backend(config.model.attention, device, precision)),
        ("kernels", name_kernels(device)),
        ("compiled", compiled),
        ("run", f"{config.run}, budget {config.budget}, seed {config.seed}"),
    ]
