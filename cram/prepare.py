"""`python -m cram.prepare recipe=R`: text to tokenized, packed and checksummed shards, outside the budget."""

from cram.command import run_door
from cram.config import Config
from cram.recipe import read_config

ABOUT = """Turn raw text into shards that cram.train reads; what is there already is not made again.

    python -m cram.prepare recipe=bert_24h data.source='texts/*.jsonl.zst' data.dir=/big/disk"""


def main(words: list[str]) -> int:
    """Prepare the data of a recipe and say what came out."""
    config = read_config(words)
    from cram.console import Progress
    from cram.data.prepare import prepare_shards

    shards = prepare_shards(config.data, config.wordpiece, config.tokenizer, Progress())
    counts = shards.manifest["counts"]
    print(
        f"{shards.folder}: {counts['documents']:,} documents, {counts['held_out_documents']:,} held out, "
        f"{shards.tokens:,} training tokens in {shards.rows:,} rows of {shards.seq_len}"
    )
    return 0


if __name__ == "__main__":
    run_door(main, Config, ABOUT)
