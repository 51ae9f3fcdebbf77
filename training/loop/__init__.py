"""The training loop: optimiser, schedule, progress, checkpoints, several processes."""
