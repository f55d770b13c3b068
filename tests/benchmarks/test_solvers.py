import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks.recording import Recorder, ramda
from benchmarks.solvers import EXACT, main


@pytest.mark.slow
def test_recorder_keeps_whole_leaves_that_are_solved_by_tiles_otherwise():
    recorder = Recorder()
    optimizer = ramda(4, recorder)
    params = {"kernel": jnp.ones((1024, 64)), "second": jnp.ones((3, 2)), "third": jnp.ones((4, 2))}

    @jax.jit
    def step(state, params):
        recorder.subproblems.clear()
        updates, _ = optimizer.update(params, state, params)
        return updates, list(recorder.subproblems)

    updates, found = step(jax.jit(optimizer.init)(params), params)
    shapes = [problem.model.linear.shape for problem in found]
    assert sorted(shapes) == sorted(update.shape for update in jax.tree.leaves(updates))


@pytest.mark.slow
def test_the_command_runs_and_writes_what_it_prints(tmp_path, capsys):
    main(["--small", "--steps", "4", "--json", str(tmp_path / "rows.json"), "--png", str(tmp_path / "figure.png")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    printed = capsys.readouterr().out
    assert {row["study"] for row in rows} == {"solvers", "rate", "training"}
    assert all(row["solver"] in printed for row in rows if "solver" in row)
    assert (tmp_path / "figure.png").stat().st_size > 0

    exact = [row for row in rows if row["study"] == "solvers" and row["solver"] == EXACT]
    for row in exact:
        assert row["ratio"] == 1
        # The reference is independent of the library's solvers. The error includes float32 rounding of rhs.
        assert row["largest_error"] < 1e-4
        assert row["zeros_missed"] == row["zeros_false"] == 0
