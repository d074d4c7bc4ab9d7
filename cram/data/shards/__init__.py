"""Packed rows on the disk: writing, mapping, ordering, loading."""
