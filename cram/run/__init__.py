"""All that lies on the disk of a run."""
