"""Batches given to a server: their files, their records, and the work on one after the other."""
