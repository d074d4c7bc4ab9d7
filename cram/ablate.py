"""`python -m cram.ablate table=NAME`: train the arms of a table at equal budget and print the comparison."""

from cram.command import run_door
from cram.config.commands import AblateConfig
from cram.config.recipe import read_words
from cram.config.schema import collect_keys

ABOUT = """Train the arms of a table at equal budget, seed by seed, and print held-out loss, speed and tokens.

    python -m cram.ablate table=recipe budget=10m seeds=3 data.source='texts/*.jsonl.zst'
    python -m cram.ablate table=levers arms=[cram,adamw] budget=3m

All other words are keys of a recipe, for every arm. The words of an arm override them: its settings are meant for the
table's size of model. The same command again trains the runs that are missing."""


def main(words: list[str]) -> int:
    """Train the missing runs of a table and print the comparison; 1 where an arm failed."""
    table_words = [word for word in words if word.partition("=")[0] in collect_keys(AblateConfig)]
    config = read_words(AblateConfig, table_words)
    from cram.ablation.runner import run_table

    return run_table(config, [word for word in words if word not in table_words])


if __name__ == "__main__":
    run_door(main, AblateConfig, ABOUT)
