"""`/v1/chat/completions`: its body with messages and tools, its answers and its route."""
