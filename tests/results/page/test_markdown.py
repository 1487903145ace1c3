"""Tables that line up raw, and strings from data that stay strings."""

import pytest

from results.page.markdown import MAX_TEXT, escape, plain_value, spread, table


def test_columns_line_up() -> None:
    lines = table(["name", "x"], [["a", "1.0"], ["longer", "10.25"]])
    assert lines == [
        "| name   |     x |",
        "| ------ | ----: |",
        "| a      |   1.0 |",
        "| longer | 10.25 |",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("`rm -rf`", r"\`rm -rf\`"),
        ("<script>&", "&lt;script&gt;&amp;"),
        ("two\nlines\r\n\tand\x00more", "two lines and more"),
        ("*bold* _it_ ~~no~~", r"\*bold\* \_it\_ \~\~no\~\~"),
        ("[link](http://x)", r"\[link\](http://x)"),
        ("a\\b", r"a\\b"),
        ("laion_random", "laion_random"),
        ("LCL, λ = 0.5", "LCL, λ = 0.5"),
        ("\u202eevil\u2028line", "evil line"),
    ],
)
def test_text_from_data_cannot_become_markup(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_long_text_is_cut_before_it_is_escaped() -> None:
    assert escape("|" * 1000) == r"\|" * (MAX_TEXT - 1) + "…"


def test_values_print_as_one_writes_them() -> None:
    values = [True, None, 0.001, 1e-6, 120000, (0.9, 0.95), "a|b", 1.0]
    assert [plain_value(each) for each in values] == [
        "true", "none", "0.001", "1e-06", "120,000", "(0.9, 0.95)", r"a\|b", "1",
    ]  # fmt: skip


def test_a_spread_is_one_number_if_all_print_alike() -> None:
    assert [spread([1.2, 1.4]), spread([1, 20]), spread([])] == ["1", "1 to 20", "–"]
