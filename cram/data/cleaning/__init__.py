"""Which documents are kept: filters, duplicates, test text, held-out text."""
