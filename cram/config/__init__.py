"""Every key that a user can set, and the way from words and recipe files to a checked config."""
