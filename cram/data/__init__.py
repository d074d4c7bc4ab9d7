"""Text in, packed rows out: sources, tokenizer, packing, shards and the loader. Numpy only, no torch."""
