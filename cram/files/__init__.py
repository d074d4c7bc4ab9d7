"""Files that are whole or absent, with checksums, locks and messages that name them."""
