"""Looking at finished shards: figures, rows as text, and whether all is as it should be."""
