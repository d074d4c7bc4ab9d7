"""A small corpus with a simple grammar, and the words of a run on it that takes seconds."""

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Examples have no time limit, because the machine may be busy with other work.
settings.register_profile("cram", deadline=None)
settings.load_profile("cram")

# A shell lets its background processes ignore SIGINT. The tests send it to themselves and to commands.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
# Each noun has its verb and its place, so that there is something to learn.
VERBS = {
    "river": "crosses",
    "castle": "guards",
    "teacher": "teaches",
    "garden": "feeds",
    "letter": "reaches",
    "window": "opens",
    "soldier": "leaves",
    "winter": "visits",
    "market": "follows",
    "doctor": "heals",
    "engine": "moves",
    "island": "hides",
    "painter": "paints",
    "bridge": "watches",
    "farmer": "ploughs",
    "sailor": "steers",
    "singer": "praises",
    "kitchen": "warms",
}
NOUNS = list(VERBS)
PLACES = ["north", "south", "valley", "harbour", "village", "forest", "library", "station", "mountain", "meadow"]


def sentence(source: random.Random) -> str:
    """A sentence whose noun determines the verb and the place."""
    which = source.randrange(len(NOUNS))
    noun, place = NOUNS[which], PLACES[which % len(PLACES)]
    return f"The {noun} {VERBS[noun]} the {source.choice(NOUNS)} in the {place}."


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .jsonl file of 600 documents of one to nine sentences."""
    source = random.Random(0)
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    documents = (" ".join(sentence(source) for _ in range(source.randrange(1, 10))) for _ in range(600))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return path


@pytest.fixture(scope="session")
def tiny_run(corpus: Path) -> Callable[[Path], list[str]]:
    """A function that returns the words of a tiny run, which writes only below the given folder."""
    return lambda folder: [
        "recipe=bert_demo",
        f"data.source={corpus}",
        f"data.dir={folder / 'shards'}",
        f"run={folder / 'run'}",
        "data.tokens=null",
        "data.seq_len=32",
        "data.held_out=0.05",
        "wordpiece.vocab_size=192",
        "model.layers=2",
        "model.width=32",
        "model.heads=2",
        "model.mlp_width=64",
        "batch.tokens=256",
        "batch.micro_rows=4",
        "evaluation.tokens=2048",
        "log_interval=5",
        "report.live=false",
        "device=cpu",
        "threads=1",
    ]


@pytest.fixture
def tiny_words(tiny_run: Callable[[Path], list[str]], tmp_path: Path) -> list[str]:
    """The words of a tiny run that writes below `tmp_path`."""
    return tiny_run(tmp_path)
