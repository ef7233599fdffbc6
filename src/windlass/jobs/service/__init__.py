"""A model that answers whoever asks, while it runs: one thread owns it, and any thread may ask and watch."""
