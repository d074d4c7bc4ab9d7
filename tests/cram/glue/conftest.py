"""A small GLUE folder with all quirks of the published files, tiny checkpoints, and files of invented results."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cram.config.config import Config
from cram.config.data import DataConfig, WordPieceConfig
from cram.config.model import ModelConfig
from cram.config.objective import ObjectiveConfig
from cram.config.training import EvaluationConfig
from cram.data.shards.shards import HeldOutDocument
from cram.data.special_tokens import SpecialTokens
from cram.data.wordpiece import train_tokenizer
from cram.evaluation.held_out_rows import build_held_out
from cram.evaluation.scores import evaluate
from cram.files.atomic import write_json
from cram.glue.results_file import Job, ResultsFile
from cram.glue.tasks import NINE, find_tasks
from cram.hub.modernbert import MODERNBERT
from cram.model.kinds import new_model
from cram.run.checksums import register_results, write_start_files

GOOD, BAD = ("fine", "lovely", "warm", "bright"), ("poor", "dull", "cold", "grim")
THINGS = ("film", "garden", "winter", "letter", "bridge", "doctor", "island", "market")
CONFIG = Config(
    model=ModelConfig(layers=2, width=32, heads=2, mlp_width=48),
    data=DataConfig(seq_len=32),
    wordpiece=WordPieceConfig(vocab_size=64),
)
SIZES = {"train": 64, "dev": 24, "test": 10}
# The entries of a receipt that a model card reads.
RECEIPT = {
    "budget": {"clock": "steps", "limit": 1.0, "spent": 1.0, "overshoot": 0.0, "progress": 1.0},
    "held_out": {"unigram_nats_per_token": 4.5, "bigram_bits_per_byte": 3.75, "mask_rate": 0.15},
    "model": {"kind": "encoder", "parameters": 9},
    "data": {"source": "pydocs", "hash": "abc", "tokens": 9, "seq_len": 32, "vocab_size": 64},
    "positions": 9,
    "predicted_tokens": 9,
    "updates": 1,
    "epochs": 0.5,
    "device": "a machine",
    "precision": "float32",
    "seed": 0,
    "versions": {"torch": "2"},
    "commit": None,
    "rules": [],
}


def sentence(source: random.Random, label: int) -> str:
    """A sentence that shows its label by one word."""
    words = [source.choice(GOOD if label else BAD), *source.choices(THINGS, k=source.randrange(1, 5))]
    return " ".join(["the", *words])


class GlueFolder:
    """Writes the files of tasks; sentences with label 1 hold another word than those with label 0."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._source = random.Random(0)

    def examples(self, labels: list[str], count: int) -> Iterator[tuple[int, str, str, str]]:
        """Row number, sentence, second sentence and label of each example."""
        for row in range(count):
            label = row % len(labels)
            yield row, sentence(self._source, label % 2), sentence(self._source, 1), labels[label]

    def write(self, folder: str, name: str, lines: list[str], end: str = "\n", mark: str = "") -> None:
        """Write the file of a split."""
        path = self.folder / folder / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((mark + "".join(line + end for line in lines)).encode())

    def write_cola(self) -> None:
        """CoLA: no header but in the test file, quotation marks that are never closed."""
        for split, count in SIZES.items():
            examples = self.examples(["0", "1"], count)
            if split == "test":
                lines = ["index\tsentence", *(f"{row}\t{text}" for row, text, _, _ in examples)]
            else:
                lines = [f'gj04\t{label}\t*\t"{text}' for _, text, _, label in examples]
            self.write("CoLA", split, lines)

    def write_sst2(self) -> None:
        """SST-2: sentences end in a space."""
        for split, count in SIZES.items():
            examples = self.examples(["0", "1"], count)
            if split == "test":
                lines = ["index\tsentence", *(f"{row}\t{text}" for row, text, _, _ in examples)]
            else:
                lines = ["sentence\tlabel", *(f"{text} \t{label}" for _, text, _, label in examples)]
            self.write("SST-2", split, lines)

    def write_pairs(
        self, folder: str, columns: tuple[str, str], label_column: str, labels: list[str], splits: dict[str, int]
    ) -> None:
        """A task of sentence pairs; second sentences begin with a quotation mark."""
        for split, count in splits.items():
            labelled = not split.startswith("test")
            lines = [f"index\t{columns[0]}\t{columns[1]}" + (f"\t{label_column}" if labelled else "")]
            for row, first, second, label in self.examples(labels, count):
                lines.append(f'{row}\t{first}\t"{second}' + (f"\t{label}" if labelled else ""))
            self.write(folder, split, lines)

    def write_mrpc(self) -> None:
        """MRPC: a byte-order mark, and lines that end with CR LF."""
        for split, count in SIZES.items():
            lines = [("index" if split == "test" else "Quality") + "\t#1 ID\t#2 ID\t#1 String\t#2 String"]
            for row, first, second, label in self.examples(["0", "1"], count):
                lines.append(f'{row if split == "test" else label}\t{row}1\t{row}2\t{first} ""\t"{second}')
            self.write("MRPC", split, lines, end="\r\n", mark="\ufeff")

    def write_qqp(self) -> None:
        """QQP: a row that is broken over two lines."""
        for split, count in SIZES.items():
            labelled = split != "test"
            lines = ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate" if labelled else "id\tquestion1\tquestion2"]
            for row, first, second, label in self.examples(["0", "1"], count):
                columns = [str(row), "7", "8", first, f"'{second}\"", label] if labelled else [str(row), first, second]
                lines.append("\t".join(columns))
            if labelled:
                lines[4:4] = ["900\t7\t8\tbroken in", "the middle\tof a row\t1"]
            self.write("QQP", split, lines)


@pytest.fixture(scope="session")
def glue_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tasks in the standard layout, with 64 training examples and the quirks of the published files."""
    glue = GlueFolder(tmp_path_factory.mktemp("data") / "glue")
    pair, entailed = ("sentence1", "sentence2"), ["entailment", "not_entailment"]
    mnli_sizes = {"train": SIZES["train"]}
    mnli_sizes |= {f"{split}_{kind}": SIZES[split] for split in ("dev", "test") for kind in ("matched", "mismatched")}
    glue.write_cola()
    glue.write_sst2()
    glue.write_pairs("RTE", pair, "label", entailed, SIZES)
    glue.write_pairs("QNLI", ("question", "sentence"), "label", entailed, SIZES)
    glue.write_pairs("WNLI", pair, "label", ["0", "1"], SIZES)
    glue.write_pairs("STS-B", pair, "score", ["0.000", "5", "2.50"], SIZES)
    glue.write_pairs("MNLI", pair, "gold_label", ["neutral", "entailment", "contradiction"], mnli_sizes)
    glue.write_pairs("diagnostic", pair, "", [""], {"test": 7})
    (glue.folder / "diagnostic" / "test.tsv").rename(glue.folder / "diagnostic" / "diagnostic.tsv")
    glue.write_mrpc()
    glue.write_qqp()
    return glue.folder


def corpus() -> list[str]:
    """Texts for the tokenizer."""
    source = random.Random(1)
    return [sentence(source, row % 2) for row in range(200)]


def make_encoder(folder: Path) -> Path:
    """A folder of a stock ModernBERT with random weights."""
    from transformers import AutoConfig, AutoModelForMaskedLM

    folder.mkdir(parents=True)
    tokenizer = train_tokenizer(corpus(), CONFIG.wordpiece)
    special = SpecialTokens.of(tokenizer)
    config = MODERNBERT.config(CONFIG.model, tokenizer.get_vocab_size(), CONFIG.data.seq_len, special)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in MODERNBERT.task.tokenizer_files(CONFIG.data.seq_len, special.names(tokenizer)).items():
        (folder / name).write_text(json.dumps(content))
    torch.manual_seed(11)
    model = AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(folder))
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "decoder.weight"}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def make_run(folder: Path, kind: str = "encoder") -> Path:
    """A finished run of a tiny model."""
    objective = ObjectiveConfig(kind="causal" if kind == "decoder" else "masked")
    model_config = ModelConfig(kind=kind, layers=2, width=32, heads=2, mlp_width=48)  # type: ignore[arg-type]
    config = Config(model=model_config, data=CONFIG.data, wordpiece=CONFIG.wordpiece, objective=objective)
    folder.mkdir(parents=True)
    tokenizer = train_tokenizer(corpus(), config.wordpiece)
    write_start_files(folder, config, {}, tokenizer.to_str(pretty=True).encode(), data="of the test")
    documents = [HeldOutDocument(text, f"{number:064x}") for number, text in enumerate(corpus()[:20])]
    rows = build_held_out(documents, tokenizer, 32, EvaluationConfig(), objective=objective.kind)
    (folder / "held_out.safetensors").write_bytes(rows.to_bytes())
    model = new_model(config.model, tokenizer.get_vocab_size())
    model.initialise(0)
    save_file(model.state_dict(), folder / "model.safetensors")
    figures = evaluate(model, rows, torch.device("cpu"))
    write_json(folder / "receipt.json", RECEIPT | {"held_out": {**RECEIPT["held_out"], **figures}})
    register_results(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a stock encoder."""
    return make_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="session")
def new_run() -> Callable[..., Path]:
    """Makes the folder of a finished run, of `kind`."""
    return make_run


def invented_score(subset: str, metric: str, seed: int, rate: float) -> float:
    """A score that tells subset, metric, seed and rate apart."""
    return 50.0 + 3 * NINE.index(subset) + [0.0, 5.0, -2.0][seed] + (rate > 1e-5) + 0.5 * (metric == "accuracy")


def fill_results_file(path: Path, rates: tuple[float, ...] = (4e-5,), untrained: bool = False) -> ResultsFile:
    """A results file, not written, with three seeds of the eight tasks of the mean."""
    file = ResultsFile(path / "glue.json", {})
    for task in find_tasks([]):
        for rate in rates:
            for seed in range(3):
                outcome: dict[str, Any] = {
                    "scores": {
                        subset.name: {name: invented_score(subset.name, name, seed, rate) for name in task.metrics}
                        for subset in task.subsets
                    },
                    "data": "d",
                    "began_with": "w" * 64,
                    "train": f"rows of {task.name}",
                    "learning_rate": rate,
                    "epochs": 5,
                    "batch": 16,
                }
                file.outcomes[Job(task.name, rate, seed, untrained)] = outcome
    return file


@pytest.fixture(scope="session")
def filled_file() -> Callable[..., ResultsFile]:
    """Makes a results file of invented scores."""
    return fill_results_file


@pytest.fixture(scope="session")
def score_of() -> Callable[[str, str, int, float], float]:
    """The invented score of a subset, metric, seed and rate."""
    return invented_score
