"""Arms at equal budget: what each trains, and how they compare."""
