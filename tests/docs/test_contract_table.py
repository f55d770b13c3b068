"""The table of the contract in `tests/README.md` agrees with the marks on the tests."""

from tests import contract


def test_the_table_is_as_the_marks_make_it():
    text = contract.README.read_text()
    assert text == contract.written(text), "run `python -m tests.contract`"


def test_every_line_has_a_test():
    assert [line for line, tests in contract.tests_by_line().items() if not tests] == []
