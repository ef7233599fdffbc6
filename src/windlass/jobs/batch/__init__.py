"""A batch that survives the night: its journal, its output, and what happens between them."""
