"""Oracles: the items themselves, and the lines on standard error."""

import sys

import pytest

from previts.processes import progress


def test_items_pass_unchanged_and_a_pipe_gets_whole_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)
    assert list(progress.progress(iter("abcd"), "reading", unit="file", total=4)) == list("abcd")
    text = capsys.readouterr().err
    assert "\r" not in text
    lines = text.splitlines()
    assert all(line.startswith("reading:") for line in lines)
    assert "0/4" in lines[0]
    assert "4/4" in lines[-1]
    assert "file/s" in lines[-1]


def test_a_log_gets_few_lines_for_many_items(capsys):
    assert sum(progress.progress(range(10_000), "counting", unit="number")) == sum(range(10_000))
    assert len(capsys.readouterr().err.splitlines()) <= 3


def test_added_numbers_are_shown(capsys):
    bar = progress.progress([1], "training", unit="step")
    for _ in bar:
        bar.set_postfix(loss="0.25")
    assert "loss=0.25" in capsys.readouterr().err


def test_a_terminal_gets_a_bar_that_is_redrawn(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress.progress([1, 2], "reading", unit="file")) == [1, 2]
    assert "\r" in capsys.readouterr().err
