"""`python -m cram.prepare recipe=R`: text to tokenized, packed and checksummed shards, outside the budget.

With `verify=DIR` or `show=DIR` it looks at finished shards.
"""

from cram.command import dry_run_words, run_door
from cram.config.commands import ShardsConfig
from cram.config.config import Config
from cram.config.recipe import read_config
from cram.config.schema import collect_keys

ABOUT = """Turn raw text into shards that cram.train reads. Shards that exist already are not made again.

    python -m cram.prepare recipe=bert_24h data.source='texts/*.jsonl.zst' data.dir=/big/disk
    python -m cram.prepare verify=/big/disk/texts-0123456789ab
    python -m cram.prepare show=/big/disk/texts-0123456789ab row=7"""


def main(words: list[str]) -> int:
    """Prepare the data of a recipe and print what came of the documents, or look at finished shards."""
    if {word.partition("=")[0] for word in words} & set(collect_keys(ShardsConfig)):
        from cram.data.inspect.look import look_at_shards

        look_at_shards(words)
        return 0
    config = read_config(dry_run_words(words))
    if config.dry_run:
        from cram.dry_run import print_dry_run

        return print_dry_run(config)
    from cram.data.inspect.show import print_summary
    from cram.data.preparation.prepare import prepare_shards
    from cram.data.preparation.vocabulary import TokenizerSource
    from cram.data.tokenizer import check_mask

    if config.tokenizer and config.objective.held_out == "masked":
        check_mask(config.tokenizer, config.special)
    tokenizer = TokenizerSource(config.tokenizer, config.wordpiece, config.special)
    print_summary(prepare_shards(config.data, tokenizer), short=True)
    return 0


if __name__ == "__main__":
    run_door(main, Config, ABOUT, instead=ShardsConfig)
