"""`/v1/files` and `/v1/batches`: work for when nobody waits, over the queue of batches."""
