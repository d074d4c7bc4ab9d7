"""From text to shards: vocabulary, first pass, fates, second pass."""
