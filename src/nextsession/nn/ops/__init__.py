"""The fast parts of the networks, each with a plain PyTorch form that says what it computes."""
