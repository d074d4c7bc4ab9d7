"""The sections of a page, made from what `cram.reporting.reading` has read."""
