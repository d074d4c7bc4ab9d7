"""What a recipe needs, and what this machine would choose."""
