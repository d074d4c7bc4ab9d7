"""`python -m cram.prepare recipe=R`: text to tokenized, packed and checksummed shards, outside the budget.

`verify=DIR` and `show=DIR` look at shards that are there.
"""

from cram.command import dry_run_words, run_door
from cram.config.commands import ShardsConfig
from cram.config.config import Config
from cram.config.recipe import read_config, read_words
from cram.config.schema import collect_keys
from cram.errors import CramError

ABOUT = """Turn raw text into shards that cram.train reads; what is there already is not made again.

    python -m cram.prepare recipe=bert_24h data.source='texts/*.jsonl.zst' data.dir=/big/disk
    python -m cram.prepare verify=/big/disk/texts-0123456789ab
    python -m cram.prepare show=/big/disk/texts-0123456789ab row=7"""


def main(words: list[str]) -> int:
    """Prepare the data of a recipe and say what came out; or look at shards that are there."""
    said = {word.partition("=")[0] for word in words}
    if said & set(collect_keys(ShardsConfig)):
        _look(words, said)
    else:
        _prepare(words)
    return 0


def _prepare(words: list[str]) -> None:
    config = read_config(dry_run_words(words))
    if config.dry_run:
        from cram.dry_run import print_dry_run

        print_dry_run(config)
        return
    from cram.data.inspect.show import print_summary
    from cram.data.preparation.prepare import prepare_shards
    from cram.data.preparation.vocabulary import TokenizerSource
    from cram.data.tokenizer import check_mask

    if config.tokenizer and config.objective.held_out == "masked":
        check_mask(config.tokenizer, config.special)
    tokenizer = TokenizerSource(config.tokenizer, config.wordpiece, config.special)
    shards = prepare_shards(config.data, tokenizer)
    print_summary(shards, short=True)


def _look(words: list[str], said: set[str]) -> None:
    if others := sorted(said & set(collect_keys(Config))):
        raise CramError(
            f"{others[0]}= prepares shards; verify=, show= and row= look at some that are there. Say one or the other."
        )
    config = read_words(ShardsConfig, words)
    if config.row is not None and not config.show:
        raise CramError(f"row={config.row} is a row of which shards? Say show=DIR row={config.row}.")
    if not config.verify and not config.show:
        raise CramError("verify= and show= name no shard folder. Say verify=DIR or show=DIR.")
    if config.verify:
        from cram.data.inspect.verify import verify_shards

        shards = verify_shards(config.verify)
        print(
            f"{shards.folder}: {shards.rows:,} rows, {shards.tokens:,} tokens, "
            f"{len(shards.manifest['shards']):,} shard(s): all checksums and rows hold"
        )
    if config.show:
        from cram.data.inspect.show import print_shards

        print_shards(config.show, config.row)


if __name__ == "__main__":
    run_door(main, Config, ABOUT, instead=ShardsConfig)
