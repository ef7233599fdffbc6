"""What is told without the model answering: models, tokens, state, numbers, the interface itself."""
