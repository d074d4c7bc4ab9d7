"""The checkpoint that is fine-tuned: a run's export, a folder of a stock class, or a model of the Hugging Face Hub.

All are loaded by `AutoModelForSequenceClassification`, so that other models are scored by the same code, and the
fine-tuned models load without ours.

A run's encoder gets the head of `ModernBertForSequenceClassification`: the transform of its MLM head (dense, GELU,
norm; pretrained with the rest), dropout, a linear layer. Cramming's head is a new linear layer to 1024, tanh, dropout,
a linear layer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cram.errors import CramError
from cram.files.atomic import read_json, sha256_bytes, sha256_file, write_json
from cram.files.sealed import check_folder
from cram.glue.tasks import Task
from cram.glue.transformers_calls import error_line, naming_load_errors, quiet_transformers

FEWEST_TOKENS = 8  # a model whose rows are shorter cannot be fine-tuned
# Config keys of dropout in the stock classes. In ModernBERT, attention_dropout is also applied to the output of
# attention, and mlp_dropout comes before the second matrix of the MLP, where Cramming drops after it.
DROPOUT_KEYS = (
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "classifier_dropout",
    "attention_probs_dropout_prob",
    "hidden_dropout_prob",
    "dropout",
    "seq_classif_dropout",
    "hidden_dropout",
    "pooler_dropout",
    "classifier_dropout_prob",
    "dropout_rate",
    "summary_last_dropout",
)


@dataclass(frozen=True)
class PretrainedModel:
    """A checkpoint to start fine-tuning from.

    Attributes:
        source: its folder, or its name on the Hub.
        identity: sha256 of its weights.
        config: its config, of `transformers`.
        tokenizer: its tokenizer, of `transformers`.
        longest: most tokens of a row.
        config_file: content of its config.json, with the keys for other versions of `transformers`.
        revision: commit on the Hub, so that every job loads the same weights.
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

    def dropout_settings(self, share: float) -> dict[str, float]:
        """The dropout keys that the class has, each with this share."""
        return {name: share for name in DROPOUT_KEYS if hasattr(self.config, name)}

    def new_classifier(self, task: Task, seed: int, dropout: float, pooling: str, untrained: bool) -> torch.nn.Module:
        """Make a classifier for a task.

        Args:
            seed: of the new weights; of all weights if untrained.
            dropout: share, wherever the class has dropout.
            pooling: `first` or `mean`.
            untrained: whether all weights are random, as a control.

        Raises:
            CramError: for weights that cannot be loaded, or that do not fit config.json.
        """
        from transformers import AutoConfig, AutoModelForSequenceClassification

        labels = dict(enumerate(task.labels or ("score",)))
        settings: dict[str, Any] = {
            **self.dropout_settings(dropout),
            "num_labels": task.outputs,
            "id2label": labels,
            "label2id": {name: number for number, name in labels.items()},
            "problem_type": "regression" if task.regression else "single_label_classification",
        }
        if hasattr(self.config, "classifier_pooling"):
            settings["classifier_pooling"] = {"first": "cls", "mean": "mean"}[pooling]
        torch.manual_seed(seed)
        model: torch.nn.Module
        with quiet_transformers(), naming_load_errors(self.source):
            config = AutoConfig.from_pretrained(
                self.source, revision=self.revision, trust_remote_code=False, **settings
            )
            if untrained:
                model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
                return model
            model, loading_info = AutoModelForSequenceClassification.from_pretrained(
                self.source,
                config=config,
                revision=self.revision,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        self._check_complete(model, loading_info["missing_keys"])
        return model

    def save(self, model: Any, folder: Path) -> None:
        """Save a fine-tuned model and its tokenizer as a stock folder.

        Keys of the checkpoint's config.json that this version of `transformers` drops are kept for other versions:
        version 4 would compute something else without its keys of the rotary base.
        """
        self.tokenizer.backend_tokenizer.no_truncation()
        with quiet_transformers():
            model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        written = read_json(folder / "config.json")
        for weights in folder.glob("*.safetensors"):  # safetensors makes them readable for the owner alone
            weights.chmod((folder / "config.json").stat().st_mode)
        write_json(folder / "config.json", self.config_file | written)

    def _check_complete(self, model: Any, missing: Iterable[str]) -> None:
        """Refuse missing weights inside the encoder, which would be random; the classifier above it is new anyway."""
        prefix = f"{model.base_model_prefix}."
        lacking = sorted(name for name in missing if name.startswith(prefix) and ".pooler." not in name)
        if lacking:
            raise CramError(
                f"run={self.source}: its weights lack {len(lacking)} tensors of {type(model).__name__}, "
                f"{lacking[0]} first. Give a checkpoint whose weights fit its config.json."
            )


def open_pretrained(run: str, length: int, pooling: str) -> PretrainedModel:
    """Open the checkpoint that `run=` names.

    Args:
        run: a run folder, an exported folder or one of another stock class, or `hf:NAME`.
        length: longest row wanted, in tokens; a model that takes less gets less.
        pooling: `first` or `mean`.

    Raises:
        CramError: for a checkpoint that is not an encoder or cannot be loaded; for pooling=mean where the class has no
            such setting.
    """
    from transformers import PretrainedConfig

    source = run.removeprefix("hf:") if run.startswith("hf:") else str(_stock_folder(Path(run)))
    config, tokenizer = _load(run, source)
    with naming_load_errors(run):
        _check_encoder(run, config, tokenizer)
    if pooling != "first" and not hasattr(config, "classifier_pooling"):
        raise CramError(f"pooling={pooling}: {config.model_type} always takes the first token. Leave pooling= out.")
    revision = getattr(config, "_commit_hash", None)
    files = _weight_files(run, source, revision)
    _check_readable(run, files)
    _check_not_fine_tuned(run, config, files)
    hashes = [sha256_file(path) for path in files]
    identity = hashes[0] if len(hashes) == 1 else sha256_bytes("".join(hashes).encode())
    with quiet_transformers(), naming_load_errors(run):
        limits = (length, tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or length)
        tokenizer.model_max_length = int(min(limits))  # the saved tokenizer then cuts texts as it did for the scores
        if tokenizer.model_max_length < FEWEST_TOKENS:
            raise CramError(f"run={run}: it takes rows of {min(limits)} tokens; give another checkpoint.")
        config_file, _ = PretrainedConfig.get_config_dict(source, revision=revision)
    return PretrainedModel(source, identity, config, tokenizer, tokenizer.model_max_length, config_file, revision)


def _stock_folder(folder: Path) -> Path:
    """The folder itself if it holds a stock class, or the export of a run."""
    if (folder / "recipe.yaml").is_file():
        return _exported(folder)
    if (folder / "config.json").is_file():
        check_folder(folder, "Export the run again, to another folder.", required=False)
        return folder
    if folder.is_dir():
        reason = "it has neither recipe.yaml (a run) nor config.json (an exported model)"
    else:
        reason = "there is no such folder"
    raise CramError(f"run={folder} is not a checkpoint: {reason}. A model of the Hub is run=hf:NAME.")


def _exported(run: Path) -> Path:
    """The export of a run, which is made if it does not exist."""
    from cram.hub.export import export_run
    from cram.hub.kinds import stock_model, why_not_exported
    from cram.hub.trained import find_result
    from cram.run.checksums import read_run_config

    kind = read_run_config(run).model.kind
    if reason := why_not_exported(kind):
        raise CramError(f"run={run} cannot be fine-tuned: {reason}. Train model.kind=encoder for GLUE.")
    if (task := stock_model(kind).task).pipeline == "text-generation":
        raise CramError(f"run={run} is a {task.noun}; GLUE is for encoders. Train model.kind=encoder.")
    find_result(run, "model.safetensors")
    if not (run / "export").is_dir():
        return export_run(run, run / "export")
    check_folder(run / "export", "Remove the folder: it is made again.")
    return run / "export"


def _load(run: str, source: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    with quiet_transformers(), naming_load_errors(run):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if getattr(tokenizer, "backend_tokenizer", None) is None or tokenizer.pad_token_id is None:
        raise CramError(f"run={run}: its tokenizer has no fast backend, or no padding token; give another checkpoint.")
    return config, tokenizer


def _class_name(config: Any) -> str:
    """Name of the class that a checkpoint was saved as."""
    return str((config.architectures or [config.model_type])[0])


def _check_encoder(run: str, config: Any, tokenizer: Any) -> None:
    from transformers import AutoModelForSequenceClassification

    name = _class_name(config)
    if name.endswith(("ForCausalLM", "LMHeadModel")) or getattr(config, "is_decoder", False):
        raise CramError(f"run={run} is a {name}, a decoder; GLUE is for encoders.")
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise CramError(f"run={run} is a {name}; transformers has no class of it that classifies texts.")
    if len(tokenizer) > getattr(config, "vocab_size", len(tokenizer)):
        raise CramError(
            f"run={run}: its tokenizer has {len(tokenizer)} tokens, and its config.json says {config.vocab_size}."
        )


def _weight_files(run: str, source: str, revision: str | None) -> list[Path]:
    """The files of the weights; only safetensors are read."""
    if run.startswith("hf:") and not Path(source).is_dir():
        from transformers.utils.hub import cached_file

        try:
            return [Path(str(cached_file(source, "model.safetensors", revision=revision)))]
        except OSError as error:
            reason = error_line(error)
            raise CramError(f"run={run}: no model.safetensors could be fetched ({reason}).") from None
    files = sorted(Path(source).glob("model*.safetensors"))
    if not files:
        raise CramError(f"run={run} has no model.safetensors; pickled weights are not read.")
    return files


def _check_not_fine_tuned(run: str, config: Any, files: Iterable[Path]) -> None:
    """Refuse a classifier of texts, unless it has no last layer yet: so is the discriminator of an ELECTRA exported."""
    from safetensors import safe_open

    from cram.hub.electra import DISCRIMINATOR

    name = _class_name(config)
    if not name.endswith("ForSequenceClassification"):
        return
    tensors: list[str] = []
    for path in files:
        with safe_open(path, "pt") as file:
            tensors.extend(file.keys())
    if name != DISCRIMINATOR.class_name or any(tensor.startswith("classifier.") for tensor in tensors):
        raise CramError(f"run={run} is a {name}, fine-tuned already; GLUE starts from a pretrained encoder.")


def _check_readable(run: str, files: Iterable[Path]) -> None:
    from safetensors import SafetensorError, safe_open

    for path in files:
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError as error:
            reason = error_line(error)
            raise CramError(f"run={run}: {path.name} is damaged or not a safetensors file ({reason}).") from None
