"""Progress of an evaluation in images."""

import sys

import pytest

from sapnet.evaluation.progress import ImageProgress, duration, image_line


def test_lines_are_printed_at_intervals_and_at_the_end(capsys):
    with ImageProgress(4, done=1, every=0.0) as progress:
        progress.update(2)
    with ImageProgress(4, every=1000.0) as progress:
        for done in (1, 2, 3, 4):
            progress.update(done)
    output = capsys.readouterr().err
    assert "\r" not in output
    first, last = output.splitlines()
    assert first.startswith("evaluated 2/4 images (50%), ") and first.endswith(" left")
    assert last.startswith("evaluated 4/4 images (100%), ") and last.endswith(" in all")


def test_nothing_is_printed_if_nothing_is_evaluated_or_after_an_error(capsys):
    with ImageProgress(4, done=4) as progress:
        progress.update(4)
    with pytest.raises(ZeroDivisionError), ImageProgress(4) as progress:
        progress.update(1)
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ImageProgress(2) as progress:
        progress.update(2)
    output = capsys.readouterr().err
    assert "evaluating: 100%" in output and "2/2" in output and "evaluated" not in output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((0, 0, 10, 0.0), "evaluated 0/10 images (0%)"),
        ((5, 3, 10, 4.0), "evaluated 5/10 images (50%), 2 s per image, 10 s left"),
        ((10, 0, 10, 65.0), "evaluated 10/10 images (100%), 6.5 s per image, 1 min 5 s in all"),
    ],
)
def test_images_of_earlier_evaluations_do_not_count_for_the_speed(arguments, line):
    assert image_line(*arguments) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (18600, "5 h 10 min"), (187200, "2 d 4 h")],
)
def test_duration_formats_the_two_largest_units(seconds, text):
    assert duration(seconds) == text
