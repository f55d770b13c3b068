from ramda_jax.tables import text_table


def test_text_table_pads_columns_and_lets_one_cell_run_into_the_empty_one_after_it():
    rows = [("leaf", "kind", "axes", "n"), ("a", "b", "(0, 1)", "4"), ("total", "over two", "", "1234")]
    assert text_table(rows, right=[3], spill=(2, 1)) == [
        "leaf   kind  axes       n",
        "a      b     (0, 1)     4",
        "total  over two      1234",
    ]
    assert text_table([("leaf", ""), ("a", "")]) == ["leaf", "a"]
