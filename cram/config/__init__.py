"""All keys that a user can set, and how words and recipe files become a checked config."""
