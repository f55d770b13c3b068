import numpy as np

from benchmarks.logistic import certify, solve
from benchmarks.minimiser import Left, compare
from tests.benchmarks.test_identification import small_problem


def test_compare_says_which_zeros_are_missed_and_what_keeps_them_alive():
    problem = small_problem()
    kernel, bias = solve(problem, 200)
    alive = np.linalg.norm(kernel, axis=1) > 0
    certificate = certify(problem, kernel, bias)
    missed, lost = np.flatnonzero(~alive)[0], np.flatnonzero(alive)[0]
    run = kernel.copy()
    run[missed], run[lost] = 0.01, 0
    average = np.linspace(0.5, 1.5, len(alive)) * problem.group_weight
    pull = np.linspace(0, 1, len(alive)) * problem.group_weight
    runs = [Left("rmda", run, bias, average, pull), Left("prox_sgd", kernel, bias, None, None)]
    first, second = compare(problem, (kernel, bias), certificate, runs)
    assert first["zero"] == np.sum(~alive) and first["zero_in_both"] == np.sum(~alive) - 1
    assert first["only_in_minimiser"] == first["only_in_run"] == 1
    np.testing.assert_allclose(first["largest_margin_missed"], certificate.margins[missed] / problem.group_weight)
    np.testing.assert_allclose(first["longest_group_lost"], np.linalg.norm(kernel[lost]))
    np.testing.assert_allclose(first["average_of_missed"] * problem.group_weight, average[missed])
    np.testing.assert_allclose(first["anchor_of_missed"] * problem.group_weight, pull[missed])
    assert first["objective_above"] > 0 and second["objective_above"] == 0
    assert second["zero_in_both"] == second["zero"] and "anchor_of_missed" not in second
