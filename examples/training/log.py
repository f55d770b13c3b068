"""The log of a run, and the wish to stop it."""

import contextlib
import json
import signal
import threading


class Stopper:
    """Turns the first Ctrl-C (or SIGTERM) into a wish to stop; the second interrupts at once."""

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
    """The run's records, one JSON object a line; those of steps that were lost in a crash are dropped."""

    def __init__(self, path, steps):
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        records = []
        for line in lines:
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:  # the line that a killed run was writing
                break
        self.records = [record for record in records if record["step"] <= steps]
        path.write_text("".join(json.dumps(record) + "\n" for record in self.records))

    def add(self, record):
        self.records.append(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    @property
    def rounds(self):
        """The records of ends of rounds."""
        return [record for record in self.records if "W" in record]

    @property
    def steps(self):
        """The records of single steps."""
        return [record for record in self.records if "W" not in record]
