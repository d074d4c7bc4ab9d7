"""A small GLUE folder with every quirk of the files, and checkpoints of all sorts, tiny."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cram.config.config import Config
from cram.config.data import DataConfig, WordPieceConfig
from cram.config.model import ModelConfig
from cram.config.training import EvaluationConfig, ObjectiveConfig
from cram.data.tokenizer import SpecialTokens, train_tokenizer
from cram.evaluate import TextDocument
from cram.evaluation.held_out import build_held_out, evaluate
from cram.files.atomic import write_json
from cram.hub.stock import stock_config, tokenizer_files
from cram.model.kinds import new_model
from cram.run.files import list_results, write_naming

GOOD, BAD = ("fine", "lovely", "warm", "bright"), ("poor", "dull", "cold", "grim")
THINGS = ("film", "garden", "winter", "letter", "bridge", "doctor", "island", "market")
CONFIG = Config(
    model=ModelConfig(layers=2, width=32, heads=2, mlp_width=48),
    data=DataConfig(seq_len=32),
    wordpiece=WordPieceConfig(vocab_size=64),
)
SIZES = {"train": 64, "dev": 24, "test": 10}
# What a model card is made from.
RECEIPT = {
    "budget": {"clock": "steps", "limit": 1.0, "spent": 1.0, "overshoot": 0.0, "progress": 1.0},
    "held_out": {"unigram_nats_per_token": 4.5, "bigram_bits_per_byte": 3.75, "mask_rate": 0.15},
    "model": {"kind": "encoder", "parameters": 9},
    "data": {"source": "pydocs", "hash": "abc", "tokens": 9, "seq_len": 32, "vocab_size": 64},
    "positions": 9, "predicted_tokens": 9, "updates": 1, "epochs": 0.5, "device": "a machine", "precision": "float32",
    "seed": 0, "versions": {"torch": "2"}, "commit": None, "rules": [],
}  # fmt: skip


def sentence(source: random.Random, label: int) -> str:
    """A sentence that shows its label by one word."""
    words = [source.choice(GOOD if label else BAD), *source.choices(THINGS, k=source.randrange(1, 5))]
    return " ".join(["the", *words])


class Glue:
    """Writes the files of tasks; sentences with label 1 hold another word than those with label 0."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._source = random.Random(0)

    def lines(self, labels: list[str], split: str, count: int, form: Callable[[int, str, str, str], str]) -> list[str]:
        made = []
        for row in range(count):
            label = row % len(labels)
            made.append(form(row, sentence(self._source, label % 2), sentence(self._source, 1), labels[label]))
        return made

    def write(self, folder: str, name: str, lines: list[str], end: str = "\n", mark: str = "") -> None:
        path = self.folder / folder / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((mark + "".join(line + end for line in lines)).encode())

    def single(self, folder: str) -> None:
        for split, count in SIZES.items():
            if split == "test":
                rows = self.lines(["0", "1"], split, count, lambda n, a, b, label: f"{n}\t{a}")
                self.write(folder, split, ["index\tsentence", *rows])
            elif folder == "CoLA":
                rows = self.lines(["0", "1"], split, count, lambda n, a, b, label: f'gj04\t{label}\t*\t"{a}')
                self.write(folder, split, rows)
            else:
                rows = self.lines(["0", "1"], split, count, lambda n, a, b, label: f"{a} \t{label}")
                self.write(folder, split, ["sentence\tlabel", *rows])

    def pair(self, folder: str, heads: tuple[str, str], label: str, labels: list[str], splits: dict[str, int]) -> None:
        for split, count in splits.items():
            labelled = not split.startswith("test")
            rows = self.lines(
                labels, split, count,
                lambda n, a, b, said, labelled=labelled: f'{n}\t{a}\t"{b}' + (f"\t{said}" if labelled else ""),
            )  # fmt: skip
            self.write(folder, split, [f"index\t{heads[0]}\t{heads[1]}" + (f"\t{label}" if labelled else ""), *rows])


@pytest.fixture(scope="session")
def glue_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tasks in the standard layout, 64 rows to train on, with the quirks of the published files."""
    glue = Glue(tmp_path_factory.mktemp("data") / "glue")
    pair, entailed = ("sentence1", "sentence2"), ["entailment", "not_entailment"]
    glue.single("CoLA")
    glue.single("SST-2")
    glue.pair("RTE", pair, "label", entailed, SIZES)
    glue.pair("QNLI", ("question", "sentence"), "label", entailed, SIZES)
    glue.pair("WNLI", pair, "label", ["0", "1"], SIZES)
    glue.pair("STS-B", pair, "score", ["0.000", "5", "2.50"], SIZES)
    both = {"train": 64, **{f"{s}_{k}": SIZES[s] for s in ("dev", "test") for k in ("matched", "mismatched")}}
    glue.pair("MNLI", pair, "gold_label", ["neutral", "entailment", "contradiction"], both)
    glue.pair("diagnostic", pair, "", [""], {"test": 7})
    (glue.folder / "diagnostic" / "test.tsv").rename(glue.folder / "diagnostic" / "diagnostic.tsv")
    for split, count in SIZES.items():
        head = ("index" if split == "test" else "Quality") + "\t#1 ID\t#2 ID\t#1 String\t#2 String"
        rows = glue.lines(
            ["0", "1"], split, count,
            lambda n, a, b, label, split=split: f'{n if split == "test" else label}\t{n}1\t{n}2\t{a} ""\t"{b}',
        )  # fmt: skip
        glue.write("MRPC", split, [head, *rows], end="\r\n", mark="\ufeff")
        labelled = split != "test"
        head = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate" if labelled else "id\tquestion1\tquestion2"
        rows = glue.lines(
            ["0", "1"], split, count,
            lambda n, a, b, label, labelled=labelled: (
                f"{n}\t7\t8\t{a}\t'{b}\"\t{label}" if labelled else f"{n}\t{a}\t{b}"
            ),
        )  # fmt: skip
        if labelled:
            rows[3:3] = ["900\t7\t8\tbroken in", "the middle\tof a row\t1"]
        glue.write("QQP", split, [head, *rows])
    return glue.folder


def texts() -> list[str]:
    source = random.Random(1)
    return [sentence(source, row % 2) for row in range(200)]


def make_encoder(folder: Path) -> Path:
    """A folder of a stock ModernBERT with random weights."""
    from transformers import AutoConfig, AutoModelForMaskedLM

    folder.mkdir(parents=True)
    tokenizer = train_tokenizer(texts(), CONFIG.wordpiece)
    special = SpecialTokens.of(tokenizer)
    content = stock_config(CONFIG.model, tokenizer.get_vocab_size(), CONFIG.data.seq_len, special)
    (folder / "config.json").write_text(json.dumps(content))
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, said in tokenizer_files(CONFIG.data.seq_len, "encoder", special.names(tokenizer)).items():
        (folder / name).write_text(json.dumps(said))
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
    tokenizer = train_tokenizer(texts(), config.wordpiece)
    write_naming(folder, config, {}, tokenizer.to_str(pretty=True).encode(), data="of the test")
    documents = [TextDocument(text, f"{number:064x}") for number, text in enumerate(texts()[:20])]
    rows = build_held_out(documents, tokenizer, 32, EvaluationConfig(), objective=objective.kind)
    (folder / "held_out.safetensors").write_bytes(rows.to_bytes())
    model = new_model(config.model, tokenizer.get_vocab_size())
    model.initialise(0)
    save_file(model.state_dict(), folder / "model.safetensors")
    figures = evaluate(model, rows, torch.device("cpu"))
    write_json(folder / "receipt.json", RECEIPT | {"held_out": {**RECEIPT["held_out"], **figures}})
    list_results(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a stock encoder."""
    return make_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="session")
def new_run() -> Callable[..., Path]:
    """Makes the folder of a finished run, of `kind`."""
    return make_run
