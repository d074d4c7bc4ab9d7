"""What `cram.prepare` does with existing shards: it verifies them or prints what is in them."""

from cram.config.commands import ShardsConfig
from cram.config.config import Config
from cram.config.recipe import read_words
from cram.config.schema import collect_keys
from cram.data.inspect.show import print_shards
from cram.data.inspect.verify import verify_shards
from cram.errors import CramError


def look_at_shards(words: list[str]) -> None:
    """Verify a shard folder, or print what is in it, as the words say.

    Raises:
        CramError: for words that prepare shards, words without a folder, and a folder that is damaged.
    """
    if recipe_words := [word for word in words if word.partition("=")[0] in collect_keys(Config)]:
        raise CramError(
            f"{recipe_words[0].partition('=')[0]}= prepares shards, but verify=, show= and row= look at finished ones. "
            "Use one or the other."
        )
    config = read_words(ShardsConfig, words)
    if config.row is not None and not config.show:
        raise CramError(f"row={config.row} needs show=DIR: it selects a row of that folder.")
    if not config.verify and not config.show:
        raise CramError("verify= and show= name no shard folder. Use verify=DIR or show=DIR.")
    if config.verify:
        shards = verify_shards(config.verify)
        print(
            f"{shards.folder}: {shards.rows:,} rows, {shards.tokens:,} tokens, "
            f"{len(shards.manifest['shards']):,} shard(s): all checksums and rows hold"
        )
    if config.show:
        print_shards(config.show, config.row)
