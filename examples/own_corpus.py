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
FOLDER = Path("own_corpus")


def write_corpus(path: Path) -> None:
    """600 documents of one to nine sentences, in which the verb follows from the subject."""
    source = random.Random(0)
    with path.open("w") as file:
        for _ in range(600):
            numbers = [source.randrange(len(SUBJECTS)) for _ in range(source.randrange(1, 10))]
            text = " ".join(f"The {SUBJECTS[n]} {VERBS[n]} the {source.choice(SUBJECTS)}." for n in numbers)
            file.write(json.dumps({"text": text}) + "\n")


def main() -> None:
    """Train, load, and print what the model puts in the place of a hidden word."""
    FOLDER.mkdir(exist_ok=True)
    write_corpus(FOLDER / "corpus.jsonl")
    run = cram.fit(
        "bert_demo",
        budget="20steps",
        run=FOLDER / "run",
        device="cpu",
        data={
            "source": FOLDER / "corpus.jsonl",
            "dir": FOLDER / "shards",
            "seq_len": 32,
            "held_out": 0.05,
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
    text = tokenizer.encode("The river [MASK] the garden.")
    with torch.no_grad():
        logits = model.head(model(torch.tensor([text.ids])))  # (seq_len, vocab_size)
    place = text.ids.index(tokenizer.token_to_id("[MASK]"))
    print("The river ... the garden:", tokenizer.id_to_token(int(logits[place].argmax())))


if __name__ == "__main__":
    main()
