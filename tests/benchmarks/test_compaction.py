import json

import pytest

from benchmarks.compaction import main


@pytest.mark.slow
def test_the_command_runs_and_writes_what_it_prints(tmp_path, capsys):
    main(["--small", "--rounds", "2", "--json", str(tmp_path / "rows.json"), "--png", str(tmp_path / "figure.png")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    printed = capsys.readouterr().out
    assert [(row["study"], row["net"]) for row in rows] == [
        ("saving", "vgg19"),
        ("saving", "lenet5"),
        ("analysis", "resnet50"),
    ]
    assert (tmp_path / "figure.png").stat().st_size > 0
    for row in rows[:2]:
        assert f"{100 * row['removed_params']:.1f} %" in printed
        # The removed share is arithmetic, so it is checked for tiny nets too. Their speed says nothing.
        assert row["removed_params"] > 0.8
        assert row["removed_flops"] > 0.6
        assert row["error"] <= 1e-5
    assert rows[2]["seconds"] < 30
