"""The command runs; its figures over long stages are in the guide."""

from benchmarks.long_stages import main


def test_the_command_prints_a_row_for_each_length(capsys):
    main(["--steps", "10", "300"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["10", "300"]
    # Over few steps the error of float32 sums is rounding.
    assert all(float(error) < 1e-5 for line in lines[-2:] for error in line.split()[1:])
