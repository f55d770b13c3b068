"""The error of the loaders: it names the file, its fault and the remedy."""

from pathlib import Path


class DataError(Exception):
    """The data are missing or of another kind; the message names the file and the remedy."""


def require(data_dir, names, source, name):
    """Raises if `data_dir` lacks one of the files `names`.

    Args:
        data_dir: the data set's own folder, or None where the user gave none.
        names: paths inside it.
        source: where to get them.
        name: the data set, for the message.
    """
    listed = "".join(f"\n  {name}" for name in names)
    if data_dir is None:
        raise DataError(f"{name} needs --data-dir, a folder with{listed}\nGet them from {source}")
    missing = [name for name in names if not (Path(data_dir) / name).exists()]
    if missing:
        listed = "".join(f"\n  {name}" for name in missing)
        raise DataError(
            f"{name} is not complete in {Path(data_dir).resolve()}, which lacks{listed}\nGet them from {source} and "
            "put them there."
        )


def check_enough(count, batch_size, what):
    """Raises if there are fewer examples than a batch needs."""
    if count < batch_size:
        raise DataError(
            f"A batch of {batch_size} must not be larger than the data, which are {count} {what}; use --batch-size "
            f"{max(count, 1)} or less, or more data."
        )
