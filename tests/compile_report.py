"""`pytest --compile-report`: where the tests' processor time goes, by test, by file and by folder.

XLA's compiler takes most of it; JAX's monitoring events say how much. A test that shares a compiled program with an
earlier test spends nothing on it, so read the report of a whole run.
"""

import collections
import dataclasses
import json
import os
from pathlib import Path

import jax.monitoring
import pytest

COMPILED = "/jax/core/compile/backend_compile_duration"
LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
MEASURES = ("cpu", "xla", "lowering", "programs")
# The number of rows of the tables by test and by file.
NUM_ROWS = 40


def processor_seconds():
    """User and system time of this process, all of its threads, and of the processes that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclasses.dataclass
class Clock:
    """The seconds and the number of programs that one process has spent on compilation so far."""

    xla: float = 0.0
    lowering: float = 0.0
    programs: int = 0

    def on_event(self, event, duration, **_):
        if event == COMPILED:
            self.xla += duration
            self.programs += 1
        elif event == LOWERED:
            self.lowering += duration

    def read(self):
        return (processor_seconds(), self.xla, self.lowering, self.programs)


def table(title, rows):
    """Lines of a table, the most expensive row first; `rows` maps a name to its measures."""
    lines = [f"{title:70} {'processor s':>12} {'XLA s':>8} {'lowering s':>11} {'programs':>9}"]
    for name, (cpu, xla, lowering, programs) in sorted(rows.items(), key=lambda row: -row[1][0]):
        name = name if len(name) <= 70 else "..." + name[-67:]
        lines.append(f"{name:70} {cpu:12.1f} {xla:8.1f} {lowering:11.1f} {programs:9.0f}")
    return lines


def total(rows):
    return tuple(sum(column) for column in zip(*rows, strict=True)) or (0.0,) * len(MEASURES)


class CompileReport:
    """The plugin: measures every phase of every test where it runs, and prints the sums where the results arrive."""

    def __init__(self, config):
        self.config = config
        self.clock = Clock()
        self.last = self.clock.read()
        self.by_test = collections.defaultdict(list)
        self.processes = []  # processor seconds of the workers, or of this process without workers
        jax.monitoring.register_event_duration_secs_listener(self.clock.on_event)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self):
        self.last = self.clock.read()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self):
        report = yield
        now = self.clock.read()
        spent = [new - old for new, old in zip(now, self.last, strict=True)]
        # Copy the list, because pytest passes the same list to the reports of all phases.
        report.user_properties = [*report.user_properties, ("spent", spent)]
        self.last = now
        return report

    def pytest_runtest_logreport(self, report):
        for name, value in report.user_properties:
            if name == "spent":
                self.by_test[report.nodeid].append(value)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self):
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["processor_seconds"] = processor_seconds()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.processes.append(getattr(node, "workeroutput", {}).get("processor_seconds", 0.0))

    def pytest_terminal_summary(self, terminalreporter):
        tests = {name: total(rows) for name, rows in self.by_test.items()}
        file = self.config.getoption("--compile-report-file")
        if file:
            named = {name: dict(zip(MEASURES, row, strict=True)) for name, row in tests.items()}
            Path(file).write_text(json.dumps(named, indent=1))
        files, folders = collections.defaultdict(list), collections.defaultdict(list)
        for name, row in tests.items():
            file = name.split("::")[0]
            files[file].append(row)
            parts = file.split("/")
            folders["/".join(parts[:2]) if len(parts) > 2 else parts[0]].append(row)
        files = {name: total(rows) for name, rows in files.items()}
        folders = {name: total(rows) for name, rows in folders.items()}
        whole = total(tests.values())
        # With workers, their processor time counts, and not that of this process, which waited. Without workers, this
        # process counts.
        started = sum(self.processes or [processor_seconds()]) - whole[0]
        folders["(starting Python, imports, collection)"] = (started, 0.0, 0.0, 0)
        folders["(all)"] = total(folders.values())
        terminalreporter.section("processor time and compilation")
        worst = dict(sorted(tests.items(), key=lambda row: -row[1][0])[:NUM_ROWS])
        worst_files = dict(sorted(files.items(), key=lambda row: -row[1][0])[:NUM_ROWS])
        for title, rows in [("test", worst), ("file", worst_files), ("folder", folders)]:
            for line in table(title, rows):
                terminalreporter.write_line(line)
            terminalreporter.write_line("")
