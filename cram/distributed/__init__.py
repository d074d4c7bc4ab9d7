"""Ranks: processes that compute a run together; how they start, what they exchange, and how they are watched."""
