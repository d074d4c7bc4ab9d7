"""Rules over several keys of a config. What a single key accepts is declared with the key."""

from dataclasses import asdict

from cram.budget import parse_duration
from cram.config.choices import MODELS
from cram.config.config import Config
from cram.config.data import VOCAB_MULTIPLE, DataConfig
from cram.config.model import ModelConfig
from cram.config.plan import MODEL_KEYS, PLANNED_KEYS
from cram.errors import CramError

# Models whose input can be the mean of several embeddings.
SUPERPOSED_MODELS = ("encoder", "decoder")
LEARNED_POSITIONS = ("bert", "prenorm_bert", "minimal_bert")
# Objectives whose loss is that of predicted tokens, for methods that rank rows or draw labels.
ROW_LOSSES = ("masked", "causal")


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
    if config.model.kind in LEARNED_POSITIONS and config.data.seq_len > config.model.positions:
        raise CramError(
            f"data.seq_len={config.data.seq_len} is longer than model.positions={config.model.positions}: change one."
        )
    _check_optimizer(config)
    _check_reference_time(config)
    _check_methods(config)
    _check_stacking(config)
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


def _check_optimizer(config: Config) -> None:
    muon, ahead = config.optimizer.muon, config.optimizer.ema_nesterov
    if ahead.lookahead is not None and ahead.start >= ahead.end:
        raise CramError(
            f"optimizer.ema_nesterov.start={ahead.start} is not before optimizer.ema_nesterov.end={ahead.end}: "
            "change one."
        )
    if muon.whitening == "mud" and muon.final_newton_schulz_steps is not None:
        raise CramError(
            f"optimizer.muon.final_newton_schulz_steps={muon.final_newton_schulz_steps} is for "
            "optimizer.muon.whitening=newton_schulz: leave one of them out."
        )


def _check_reference_time(config: Config) -> None:
    of_reference = config.parse_budget().clock == "rst"
    if of_reference and config.rst.table is None:
        raise CramError(f"budget={config.budget} needs rst.table, the seconds of each pass on a reference machine.")
    if config.rst.table and not of_reference:
        raise CramError(
            f"rst.table={config.rst.table} is for a budget of reference system time, and budget={config.budget}: "
            f"write budget=rst:{config.budget}, or leave rst.table out."
        )
    if of_reference and config.model.size == "auto":
        raise CramError("budget=rst:... needs the shape that its table is for: set model.size=given and the shape.")
    if of_reference and config.batch.micro_rows:
        raise CramError("batch.micro_rows is given by the table of a budget of reference system time: leave it out.")


def _check_methods(config: Config) -> None:
    scored = [name for name in ("selective", "rho", "pruning") if getattr(config, name).enabled]
    if scored and config.objective.kind not in ROW_LOSSES:
        raise CramError(
            f"{scored[0]} needs the loss of each row, and objective.kind={config.objective.kind} has none: use "
            f"objective.kind={' or '.join(ROW_LOSSES)}."
        )
    if config.optimizer.kind == "sophia" and config.objective.kind not in ROW_LOSSES:
        raise CramError(
            f"optimizer.kind=sophia draws labels from the predictions, and objective.kind={config.objective.kind} has "
            f"none: use objective.kind={' or '.join(ROW_LOSSES)}, or another optimizer."
        )
    if config.pruning.reference_share + config.pruning.scoring_share >= 1.0:
        raise CramError(
            f"pruning.reference_share={config.pruning.reference_share} and "
            f"pruning.scoring_share={config.pruning.scoring_share} leave nothing of the budget: lower them."
        )
    if config.batch.noise_share and (config.batch.start_tokens or config.batch.tokens) >= config.batch.tokens:
        raise CramError(
            f"batch.noise_share={config.batch.noise_share} chooses sizes between batch.start_tokens and batch.tokens: "
            "set batch.start_tokens to the smallest."
        )
    if config.curriculum.enabled and config.data.order != "shuffled":
        raise CramError(f"curriculum draws the rows itself: leave data.order={config.data.order} out.")


def _check_stacking(config: Config) -> None:
    stacking, layers = config.stacking, config.model.layers
    methods = [name for name in ("stacking", "dropping") if getattr(config, name).enabled]
    if methods and not MODELS[config.model.kind].copies:
        raise CramError(f"{methods[0]} cannot be used with model.kind={config.model.kind}: it has no blocks for it.")
    if stacking.layers is None:
        return
    if config.model.size == "auto" and "model.layers" not in config.plan.keep:
        raise CramError("stacking.layers needs a given depth: set model.layers, or model.size=given.")
    if sorted(set(stacking.at)) != stacking.at:
        raise CramError(f"stacking.at={stacking.at}: the values must rise.")
    if stacking.layers * 2 ** len(stacking.at) != layers:
        raise CramError(
            f"stacking.layers={stacking.layers} is doubled at each of the {len(stacking.at)} values of stacking.at, "
            f"which gives {stacking.layers * 2 ** len(stacking.at)} layers, and model.layers={layers}: change one."
        )
    if config.init:
        raise CramError(f"init={config.init} brings weights of all blocks, but stacking begins with fewer: change one.")
    if config.compile.cuda_graphs:
        raise CramError("compile.cuda_graphs=true cannot be used with stacking, which changes the model: leave it out.")


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
    if model.kind == "crammed" and model.width % 2:
        raise CramError(f"model.width={model.width} is odd, but sinusoidal positions need an even width: change it.")


def _check_data(config: Config) -> None:
    filters, vocab_size = config.data.filters, config.wordpiece.vocab_size
    if config.data.engine == "local" and config.data.address != DataConfig.address:
        raise CramError(
            f"data.address={config.data.address} is that of a Ray cluster, and data.engine=local prepares on this "
            "machine: say data.engine=ray too, or leave it out."
        )
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
    if objective.kind == "replaced" and objective.causal_share:
        raise CramError(f"objective.causal_share={objective.causal_share} is for objective.kind=masked: leave it out.")
    if objective.difficulty and objective.kind != "masked":
        raise CramError(f"objective.difficulty={objective.difficulty} is for objective.kind=masked: leave it out.")
    if objective.short_rows:
        _check_short_rows(config, objective.short_rows)
    if objective.superposition:
        _check_superposition(config, objective.superposition)
    if objective.replace_mask + objective.replace_random > 1.0:
        raise CramError(
            f"objective.replace_mask={objective.replace_mask} and objective.replace_random={objective.replace_random}: "
            "their sum must be at most 1."
        )


def _check_superposition(config: Config, size: int) -> None:
    objective, word = config.objective, f"objective.superposition={size}"
    if config.model.kind not in SUPERPOSED_MODELS:
        raise CramError(f"{word} needs model.kind={' or '.join(SUPERPOSED_MODELS)}, not {config.model.kind}.")
    if objective.kind == "masked" and objective.causal_share < objective.superposition_share:
        raise CramError(
            f"{word} is a causal phase: objective.causal_share={objective.causal_share} must be at least "
            f"objective.superposition_share={objective.superposition_share}."
        )
    if config.data.seq_len % size:
        raise CramError(f"{word} does not divide data.seq_len={config.data.seq_len}: change either.")
    others = [name for name in ("selective", "rho", "pruning") if getattr(config, name).enabled]
    others += ["optimizer.kind=sophia"] if config.optimizer.kind == "sophia" else []
    if others:
        raise CramError(f"{word} has no loss of single tokens, which {others[0]} needs: leave one out.")


def _check_short_rows(config: Config, length: int) -> None:
    word = f"objective.short_rows={length}"
    if config.objective.kind == "replaced":
        raise CramError(f"{word} cannot be used with objective.kind=replaced: leave it out.")
    if length >= config.data.seq_len or config.data.seq_len % length:
        raise CramError(f"{word} must be smaller than data.seq_len={config.data.seq_len} and divide it: change either.")
