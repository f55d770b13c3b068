"""Logistic regression on MNIST with the settings of the NeurIPS paper: a row of its Table 7.

    python -m examples.mnist_logistic --data-dir data/mnist --method ramda

A group has the ten weights of an input pixel. If it is zero, the classifier does not use that pixel. The example is the
same as `python -m examples.train mnist_logistic` and takes the same options; the settings are in
`experiments/mnist.py`.

The paper: Huang and Lee, `Regularized Adaptive Momentum Dual Averaging with an Efficient Inexact Subproblem Solver for
Training Structured Neural Network`, NeurIPS 2024, arXiv:2403.14398.
"""

import sys

from examples import train


def main(argv=None):
    """Runs the experiment; returns its report."""
    return train.main(["mnist_logistic", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    main()
