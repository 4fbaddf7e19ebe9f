"""A run, from pending chunks to marked ones."""
