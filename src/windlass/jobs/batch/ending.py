"""How a job stands, as its journal keeps it."""

RUNNING, PAUSED, STOPPED, CANCELLED, DONE = "running", "paused", "stopped", "cancelled", "done"

CANCEL = "cancel"
"""What another process may wish of the one at work."""
