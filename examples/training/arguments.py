"""Shared parts of the examples' command lines: the name of the command, and numbers with a smallest value."""

import argparse


def command(name, description):
    """An `argparse` parser whose program name is the command that the user types."""
    return argparse.ArgumentParser(prog=f"python -m examples.{name}", description=description)


def at_least(minimum):
    """A `type=` for `add_argument`: a whole number of at least `minimum`."""

    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < minimum:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {minimum}, got '{text}'")
        return value

    return parse
