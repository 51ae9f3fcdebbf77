"""The error of whatever a user can put right: data, options, a checkpoint, a version."""


class TrainingError(Exception):
    """A run cannot start or go on. The text says what was expected and found."""


class NotBetterError(TrainingError):
    """A model does not beat its baselines, and was required to. The text says by how much."""
