"""What is fine-tuned: a run's exported encoder, a folder of a stock class, or a model of the Hugging Face Hub.

All are loaded by `AutoModelForSequenceClassification`, so that peers are scored by the same code and what comes out
loads without ours. A run's encoder gets the head of `ModernBertForSequenceClassification`: the transform of its MLM
head (dense, GELU, norm; pretrained with the rest), dropout, a linear layer. Cramming's is a new linear layer to 1024,
tanh, dropout, a linear layer.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cram.errors import CramError
from cram.files.atomic import read_json, sha256_bytes, sha256_file, write_json
from cram.files.sealed import check_folder
from cram.glue.tasks import Task

SHORTEST = 8  # tokens of a row
# Where classes drop: on attention's probabilities and, by the same key in ModernBERT, on its output; on the embeddings;
# in the MLP (ModernBERT: before the second matrix, where Cramming drops after it); before the classifier.
DROPOUTS = (
    "attention_dropout", "embedding_dropout", "mlp_dropout", "classifier_dropout",
    "attention_probs_dropout_prob", "hidden_dropout_prob", "dropout", "seq_classif_dropout", "hidden_dropout",
    "pooler_dropout", "classifier_dropout_prob", "dropout_rate", "summary_last_dropout",
)  # fmt: skip


@dataclass(frozen=True)
class Encoder:
    """A checkpoint to start from.

    source: folder, or name on the Hub. identity: sha256 of its weights. revision: of the Hub, so that every job loads
    the same. longest: tokens of a row that it takes. config_file: config.json as it is, other versions' keys too.
    """

    source: str
    identity: str
    config: Any
    tokenizer: Any
    longest: int
    config_file: dict[str, Any]
    revision: str | None = None

    @property
    def pad_id(self) -> int:
        """Id of the padding token."""
        return int(self.tokenizer.pad_token_id)

    def dropouts(self, share: float) -> dict[str, float]:
        """The settings of dropout that the class has."""
        return {name: share for name in DROPOUTS if hasattr(self.config, name)}

    def model(self, task: Task, seed: int, dropout: float, pooling: str, untrained: bool) -> torch.nn.Module:
        """A classifier for a task, its new weights drawn from the seed; all weights if untrained."""
        from transformers import AutoConfig, AutoModelForSequenceClassification

        labels = dict(enumerate(task.labels or ("score",)))
        settings: dict[str, Any] = {
            **self.dropouts(dropout),
            "num_labels": task.outputs,
            "id2label": labels,
            "label2id": {name: number for number, name in labels.items()},
            "problem_type": "regression" if task.regression else "single_label_classification",
        }
        if hasattr(self.config, "classifier_pooling"):
            settings["classifier_pooling"] = {"first": "cls", "mean": "mean"}[pooling]
        torch.manual_seed(seed)
        with quiet(), told(self.source):
            config = AutoConfig.from_pretrained(
                self.source, revision=self.revision, trust_remote_code=False, **settings
            )
            if untrained:
                return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
            model, found = AutoModelForSequenceClassification.from_pretrained(
                self.source,
                config=config,
                revision=self.revision,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        self._check_complete(model, found["missing_keys"])
        return model

    def save(self, model: Any, folder: Path) -> None:
        """A stock folder of a fine-tuned model and its tokenizer.

        Keys of the checkpoint's config.json that this version of `transformers` drops are kept, for those that read
        them: without its rotary bases version 4 would compute something else.
        """
        self.tokenizer.backend_tokenizer.no_truncation()
        with quiet():
            model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        written = read_json(folder / "config.json")
        for weights in folder.glob("*.safetensors"):  # which safetensors writes for their owner alone
            weights.chmod((folder / "config.json").stat().st_mode)
        write_json(folder / "config.json", self.config_file | written)

    def _check_complete(self, model: Any, missing: Iterable[str]) -> None:
        """Weights that the file lacks would be random: fine above the encoder, wrong in it."""
        inside = f"{model.base_model_prefix}."
        lost = sorted(name for name in missing if name.startswith(inside) and ".pooler." not in name)
        if lost:
            raise CramError(
                f"run={self.source}: its weights lack {len(lost)} tensors of {type(model).__name__}, {lost[0]} first. "
                "Give a checkpoint whose weights fit its config.json."
            )


def open_encoder(run: str, length: int, pooling: str) -> Encoder:
    """The checkpoint that `run` names, with what is needed to start every job from it.

    Args:
        run: a run folder, an exported folder or one of another stock class, or `hf:NAME`.
        length: longest row wanted, in tokens; a model that takes less gets less.

    Errors: CramError for what is no encoder, or cannot be loaded; for pooling=mean where the class has no such choice.
    """
    from transformers import PretrainedConfig

    source = run.removeprefix("hf:") if run.startswith("hf:") else str(_folder(Path(run)))
    config, tokenizer = _load(run, source)
    with told(run):
        _check(run, config, tokenizer)
    if pooling != "first" and not hasattr(config, "classifier_pooling"):
        raise CramError(f"pooling={pooling}: {config.model_type} always takes the first token. Leave pooling= out.")
    revision = getattr(config, "_commit_hash", None)
    files = _weights(run, source, revision)
    _check_readable(run, files)
    identity = sha256_file(files[0]) if len(files) == 1 else sha256_bytes("".join(map(sha256_file, files)).encode())
    with quiet(), told(run):
        takes = (length, tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or length)
        tokenizer.model_max_length = int(min(takes))  # so that the saved one cuts where the scores were taken
        if tokenizer.model_max_length < SHORTEST:
            raise CramError(f"run={run}: it takes rows of {min(takes)} tokens; give another checkpoint.")
        config_file, _ = PretrainedConfig.get_config_dict(source, revision=revision)
    return Encoder(source, identity, config, tokenizer, tokenizer.model_max_length, config_file, revision)


def _folder(folder: Path) -> Path:
    """The folder of a stock class that `folder` is or has."""
    if (folder / "recipe.yaml").is_file():
        return _exported(folder)
    if (folder / "config.json").is_file():
        check_folder(folder, "Export the run again, to another folder.", required=False)
        return folder
    what = "it has neither recipe.yaml (a run) nor config.json (an exported model)" if folder.is_dir() else "no folder"
    raise CramError(f"run={folder} is no checkpoint: {what}. A model of the Hub is run=hf:NAME.")


def _exported(run: Path) -> Path:
    from cram.hub.export import export_run
    from cram.hub.stock import no_stock_class
    from cram.hub.trained import result
    from cram.run.files import run_config

    kind = run_config(run).model.kind
    if reason := no_stock_class(kind):
        raise CramError(f"run={run} cannot be fine-tuned: {reason}. Train model.kind=encoder for GLUE.")
    if kind == "decoder":
        raise CramError(f"run={run} is a decoder; GLUE is for encoders. Train model.kind=encoder.")
    result(run, "model.safetensors")
    if not (run / "export").is_dir():
        return export_run(run, run / "export")
    check_folder(run / "export", "Remove the folder: it is made again.")
    return run / "export"


def _load(run: str, source: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    with quiet(), told(run):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if getattr(tokenizer, "backend_tokenizer", None) is None or tokenizer.pad_token_id is None:
        raise CramError(f"run={run}: its tokenizer has no fast backend, or no padding token; give another checkpoint.")
    return config, tokenizer


def _check(run: str, config: Any, tokenizer: Any) -> None:
    from transformers import AutoModelForSequenceClassification

    name = (config.architectures or [config.model_type])[0]
    if name.endswith("ForSequenceClassification"):
        raise CramError(f"run={run} is a {name}, fine-tuned already; GLUE starts from a pretrained encoder.")
    if name.endswith(("ForCausalLM", "LMHeadModel")) or getattr(config, "is_decoder", False):
        raise CramError(f"run={run} is a {name}, a decoder; GLUE is for encoders.")
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise CramError(f"run={run} is a {name}; transformers has no class of it that classifies texts.")
    if len(tokenizer) > getattr(config, "vocab_size", len(tokenizer)):
        raise CramError(
            f"run={run}: its tokenizer has {len(tokenizer)} tokens, and its config.json says {config.vocab_size}."
        )


def _weights(run: str, source: str, revision: str | None) -> list[Path]:
    """The files of the weights, safetensors only."""
    if run.startswith("hf:") and not Path(source).is_dir():
        from transformers.utils.hub import cached_file

        try:
            return [Path(str(cached_file(source, "model.safetensors", revision=revision)))]
        except OSError as error:
            raise CramError(f"run={run}: no model.safetensors could be fetched ({_line(error)}).") from None
    files = sorted(Path(source).glob("model*.safetensors"))
    if not files:
        raise CramError(f"run={run} has no model.safetensors; pickled weights are not read.")
    return files


def _check_readable(run: str, files: Iterable[Path]) -> None:
    from safetensors import SafetensorError, safe_open

    for path in files:
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError as error:
            raise CramError(f"run={run}: {path.name} is damaged or no safetensors file ({_line(error)}).") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@contextlib.contextmanager
def told(run: str) -> Iterator[None]:
    """What a library says of files that it cannot use, whatever it raises, as a CramError of one line."""
    try:
        yield
    except (CramError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        what = _line(error) or type(error).__name__
        raise CramError(f"run={run} cannot be loaded by transformers ({what}).") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the library's bars, and its words on the classifier's new weights, which are new on purpose."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
