"""What a person sees while waiting, and output that may be lost."""
