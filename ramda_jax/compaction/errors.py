"""The error of this package."""


class CompactionError(ValueError):
    """A model cannot be made smaller, or a smaller model could not be proved equal; the message says why."""
