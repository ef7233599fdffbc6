"""What a run takes where nobody says, and a plan for one elsewhere alike."""

SHARE_OF_FREE = 0.9
"""Of the memory that is free, without a budget."""

MICRO_BATCH_TOKENS = 512
"""Wide enough for matrix products to reach their best rate, narrow enough for a layer's temporaries to stay in the last
cache: on 2 cores prefill reached 0.87 of the matrix rate at 512 and at 256, 0.84 at 1024."""
