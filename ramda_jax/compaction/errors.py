"""The error of this package."""


class CompactionError(ValueError):
    """A model cannot be made smaller, or a smaller one could not be shown to be equal; the message says why."""
