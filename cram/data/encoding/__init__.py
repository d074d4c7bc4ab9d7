"""Text to token ids, with a table of known words in front of the tokenizer."""
