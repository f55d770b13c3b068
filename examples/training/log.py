"""The log of a run, and requests to stop it."""

import contextlib
import json
import signal
import threading

from examples.training.errors import writing
from ramda_jax.files import write_whole


class Stopper:
    """Turns the first Ctrl-C (or SIGTERM) into a request to stop; the second interrupts at once."""

    def __init__(self):
        self.wanted = False

    def __call__(self):
        return self.wanted

    @contextlib.contextmanager
    def listening(self):
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def handle(number, frame):
            if self.wanted:
                raise KeyboardInterrupt
            self.wanted = True

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Log:
    """The run's records, one JSON object per line, in a file that is first rewritten with the checkpoint's records.

    Args:
        path: the path of the file; an existing file is replaced.
        records: the records so far.
    """

    def __init__(self, path, records):
        self.path = path
        self.records = list(records)
        with writing(path.parent):
            write_whole(path, as_lines(self.records))

    def add(self, record):
        """Adds a record, and writes it to the file."""
        self.records.append(record)
        with writing(self.path.parent), self.path.open("a") as file:
            file.write(as_lines([record]))

    @property
    def rounds(self):
        """The records of ends of rounds."""
        return [record for record in self.records if "W" in record]

    @property
    def steps(self):
        """The records of single steps."""
        return [record for record in self.records if "W" not in record]


def as_lines(records):
    """Records as the text of the log."""
    return "".join(json.dumps(record) + "\n" for record in records)
