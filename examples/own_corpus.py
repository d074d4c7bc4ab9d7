"""From texts of your own to a model: write them as a JSON-lines file, train, and fill a mask.

The texts are made up here, and the model is tiny, so that the program takes seconds on a CPU. For a real corpus, point
`source` at your files, take a larger recipe, and give a budget such as "10m".
"""

import json
import random
from pathlib import Path

import torch

import cram

SUBJECTS = ["river", "castle", "teacher", "garden", "letter", "window", "doctor", "island"]
VERBS = ["crosses", "guards", "teaches", "feeds", "reaches", "opens", "heals", "hides"]
PLACES = ["north", "south", "valley", "harbour", "village", "forest", "library", "station", "mountain", "meadow"]
ADJECTIVES = ["old", "young", "bright", "quiet", "distant", "heavy", "gentle", "narrow", "golden", "silver"]
FOLDER = Path("own_corpus")


def write_corpus(path: Path) -> None:
    """600 documents of one to nine sentences, as JSON lines."""
    source = random.Random(0)
    with path.open("w") as file:
        for _ in range(600):
            numbers = [source.randrange(len(SUBJECTS)) for _ in range(source.randrange(1, 10))]
            text = " ".join(write_sentence(number, source) for number in numbers)
            file.write(json.dumps({"text": text}) + "\n")


def write_sentence(number: int, source: random.Random) -> str:
    """A sentence whose verb follows from its subject."""
    adjective, place, other = (source.choice(words) for words in (ADJECTIVES, PLACES, SUBJECTS))
    return f"The {adjective} {SUBJECTS[number]} {VERBS[number]} the {other} in the {place}."


def main() -> None:
    """Train, load, and print what the model puts in the place of a hidden word."""
    FOLDER.mkdir(exist_ok=True)
    write_corpus(FOLDER / "corpus.jsonl")
    run = cram.fit(
        "bert_demo",
        budget="20steps",
        run=FOLDER / "run",
        device="cpu",
        threads=1,  # so small a model is quickest on one core
        data={
            "source": FOLDER / "corpus.jsonl",
            "dir": FOLDER / "shards",
            "seq_len": 32,
            "held_out": 0.05,
            "processes": 1,  # more would take longer to start than these texts need
            # These texts repeat a few words only, which the filters would take for trash.
            "filters": {"repetition": False, "min_words": 0, "compressibility": None},
            "dedupe": {"near": None},
        },
        wordpiece={"vocab_size": 128},
        model={"layers": 2, "width": 64, "heads": 2, "mlp_width": 128},
        batch={"tokens": 512},
    )
    print(f"held-out loss {run.receipt['held_out']['nats_per_token']:.3f} nats per token")

    model, tokenizer = cram.load(run.folder)
    text = tokenizer.encode("The old river [MASK] the garden in the valley.")
    with torch.no_grad():
        logits = model.head(model(torch.tensor([text.ids])))  # (seq_len, vocab_size)
    place = text.ids.index(tokenizer.token_to_id("[MASK]"))
    print("The old river ... the garden in the valley:", tokenizer.id_to_token(int(logits[place].argmax())))


if __name__ == "__main__":
    main()
