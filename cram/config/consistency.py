"""Rules over several keys of a config. What a single key accepts is declared with the key."""

from dataclasses import asdict

from cram.clock import parse_duration
from cram.config.choices import MODELS
from cram.config.config import Config
from cram.config.data import VOCAB_MULTIPLE
from cram.config.model import ModelConfig
from cram.config.plan import MODEL_KEYS, PLANNED_KEYS
from cram.errors import CramError


def check_config(config: Config) -> None:
    """Refuse a config that no machine can train. What one machine cannot do is found later, by `cram.build.check`.

    Raises:
        CramError: some keys contradict each other. The message names them and says what to change.
    """
    config.parse_budget()
    parse_duration(config.checkpoint.interval, "checkpoint.interval")
    _check_plan(config)
    if config.model.size == "given" or {"model.width", "model.heads"} <= set(config.plan.keep):
        _check_model(config.model)
    _check_data(config)
    _check_objective(config)
    special_words = [f"special.{role}={token}" for role, token in asdict(config.special).items() if token]
    if special_words and config.tokenizer is None:
        raise CramError(
            f"{special_words[0]} names a token of a given tokenizer: say tokenizer=FILE too, or leave it out."
        )
    if config.averaging.decay is not None and config.averaging.start is None:
        raise CramError(f"averaging.decay={config.averaging.decay} needs averaging.start, where averaging begins.")
    if config.compile.cuda_graphs and config.compile.kind == "eager":
        raise CramError(
            "compile.cuda_graphs=true replays compiled code, but compile.kind=eager compiles nothing: change one."
        )


def _check_plan(config: Config) -> None:
    if unknown := [name for name in config.plan.keep if name not in PLANNED_KEYS]:
        raise CramError(f"plan.keep: {unknown[0]} is not a key that is planned. These are: {', '.join(PLANNED_KEYS)}.")
    if config.model.size == "auto" and config.init and not set(MODEL_KEYS) <= set(config.plan.keep):
        raise CramError(
            f"init={config.init} brings weights of a given shape, but model.size=auto plans the shape: give "
            f"{', '.join(MODEL_KEYS)} as the weights have them."
        )


def _check_model(model: ModelConfig) -> None:
    if not MODELS[model.kind].attention:
        return
    if model.width % model.heads:
        raise CramError(f"model.width={model.width} is not a multiple of model.heads={model.heads}: change either.")
    rotary = MODELS[model.kind].rotary
    if rotary and model.width // model.heads % 2:
        raise CramError(
            f"model.heads={model.heads} makes heads {model.width // model.heads} wide, but rotary positions need an "
            "even width: change model.width or model.heads."
        )
    if not rotary and model.width % 2:
        raise CramError(f"model.width={model.width} is odd, but sinusoidal positions need an even width: change it.")


def _check_data(config: Config) -> None:
    filters, vocab_size = config.data.filters, config.wordpiece.vocab_size
    if filters.max_words is not None and filters.max_words < filters.min_words:
        raise CramError(
            f"data.filters.max_words={filters.max_words} is less than data.filters.min_words={filters.min_words}: "
            "no document would be kept."
        )
    if vocab_size % VOCAB_MULTIPLE:
        nearest = max(1, round(vocab_size / VOCAB_MULTIPLE)) * VOCAB_MULTIPLE
        raise CramError(
            f"wordpiece.vocab_size={vocab_size} is not a multiple of {VOCAB_MULTIPLE}: the nearest is {nearest}."
        )


def _check_objective(config: Config) -> None:
    kind, objective = config.model.kind, config.objective
    objectives = MODELS[kind].objectives
    if objective.kind not in objectives:
        models = [name for name, model in MODELS.items() if objective.kind in model.objectives]
        other_models = f", or model.kind={' or '.join(models)}" if models else ""
        raise CramError(
            f"model.kind={kind} cannot learn objective.kind={objective.kind}: "
            f"set objective.kind={' or '.join(objectives)}{other_models}."
        )
    if objective.kind == "causal" and objective.causal_share:
        raise CramError(
            f"objective.causal_share={objective.causal_share} is for objective.kind=masked: "
            "objective.kind=causal is causal from start to end, leave it out."
        )
    if objective.replace_mask + objective.replace_random > 1.0:
        raise CramError(
            f"objective.replace_mask={objective.replace_mask} and objective.replace_random={objective.replace_random}: "
            "their sum must be at most 1."
        )
