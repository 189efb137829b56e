"""The training loop: loading, optimizer, learning rate, metrics, checkpoints."""
