"""The way to and from the Hugging Face ecosystem."""
