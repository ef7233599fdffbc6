"""`/v1/completions`: its body, its answers and its route."""
