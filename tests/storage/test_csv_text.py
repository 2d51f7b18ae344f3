"""Oracles: Python's own CSV reader, and the texts that spreadsheets are known to run as formulas."""

import csv
import io
import random

import pytest

from previts.storage import csv_text


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize(
    "text",
    [
        "=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\rx", "\nx", '"=1+1', "'=1", " =1", "=", "-", "-2+3", "+49 30 1",
        "=cmd|'/C calc'!A0", "\uff1d1", "\"\t=", '=HYPERLINK("http://x","y")', "-abc123",
    ],
)  # fmt: skip
def test_a_text_that_could_be_a_formula_begins_with_an_apostrophe(text: str) -> None:
    ((cell,),) = read(csv_text.to_csv(["a"], [[text]]))[1:]
    assert cell == "'" + text.replace("\r", "\n")


@pytest.mark.parametrize("text", ["", "a=b", "v-1", "1-2", "-1.5", "+3", "-.5e-7", "1e9", "'tis", '"quoted"', "a\tb"])
def test_other_texts_and_numbers_stay(text: str) -> None:
    (row,) = read(csv_text.to_csv(["a", "b"], [[text, "x"]]))[1:]
    assert row == [text, "x"]


def test_numbers_keep_all_their_digits_and_none_is_empty() -> None:
    numbers = [-1.5, 0.1 + 0.2, -7, 1e-300, None]
    (row,) = read(csv_text.to_csv(list("abcde"), [numbers]))[1:]
    assert [float(cell) for cell in row[:4]] == numbers[:4]
    assert row[4] == ""


def test_different_texts_give_different_cells() -> None:
    draw = random.Random(0)
    texts = {"".join(draw.choices("='\"-@ \ta1.", k=draw.randrange(1, 5))) for _ in range(5000)}
    assert len({csv_text.escape(text) for text in texts}) == len(texts) > 1900
