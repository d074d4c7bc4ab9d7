"""Trained models: out of runs and checkpoints, and to and from the Hugging Face ecosystem."""
