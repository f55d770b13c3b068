"""The runner's parts: optimizers, the training loop, measures, checkpoints and reports."""
