"""Writing and reading files safely: atomic writes, checksums, locks, and error messages that name the file."""
