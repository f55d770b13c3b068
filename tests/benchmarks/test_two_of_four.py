"""The benchmark of hard targets runs."""

from benchmarks import two_of_four


def test_two_of_four_prints_a_row_for_each_regularizer(monkeypatch, capsys):
    chosen = {name: two_of_four.REGULARIZERS[name] for name in ("L1", "NofM(2, 4)")}
    monkeypatch.setattr(two_of_four, "REGULARIZERS", chosen)
    found = two_of_four.main(["--side", "8", "--rounds", "1"])
    assert found.keys() == chosen.keys() and found["L1"] == 1
    assert "NofM(2, 4)" in capsys.readouterr().out
