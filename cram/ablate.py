"""`python -m cram.ablate table=NAME`: train the arms of a table at equal budget and print what came out."""

from cram.command import run_door
from cram.config.commands import AblateConfig
from cram.config.recipe import read_words
from cram.config.schema import collect_keys

ABOUT = """Train the arms of a table at equal budget, seed by seed, and print held-out loss, speed and tokens.

    python -m cram.ablate table=recipe budget=10m seeds=3 data.source='texts/*.jsonl.zst'
    python -m cram.ablate table=levers arms=[cram,adamw] budget=3m

Words that are not below are keys of a recipe, for every arm; what an arm sets itself stands, and is meant for the
table's size of model. The same command again trains what is missing."""


def main(words: list[str]) -> int:
    """Run what is missing of a table and print it; 1 where an arm failed."""
    own = [word for word in words if word.partition("=")[0] in collect_keys(AblateConfig)]
    said = read_words(AblateConfig, own)
    from cram.ablation.runner import run_table

    return run_table(said, [word for word in words if word not in own])


if __name__ == "__main__":
    run_door(main, AblateConfig, ABOUT)
