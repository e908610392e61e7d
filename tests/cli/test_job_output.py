"""Output of jobs that run at the same time in one terminal."""

import io
import logging
import sys

from hydra.core.hydra_config import HydraConfig

from sapnet.cli.job_output import PrefixedLines, numbered_output, prefixed_output


def test_whole_lines_are_written_with_the_prefix():
    stream = io.StringIO()
    lines = PrefixedLines(stream, "[#3] ")
    assert lines.write("a") == 1 and stream.getvalue() == ""
    lines.write("b\n\nc")
    assert stream.getvalue() == "[#3] ab\n[#3] \n"
    lines.finish()
    assert stream.getvalue() == "[#3] ab\n[#3] \n[#3] c\n"
    lines.finish()
    assert stream.getvalue().endswith("[#3] c\n") and not lines.isatty()


def test_output_and_log_have_the_prefix_inside_the_context_only(capsys):
    handler = logging.StreamHandler(sys.stdout)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with prefixed_output("[#1] "):
            print("out")
            print("error", end="", file=sys.stderr)
            root.warning("logged")
        print("after")
        root.warning("logged")
    finally:
        root.removeHandler(handler)
    out, error = capsys.readouterr()
    assert out.splitlines() == ["[#1] out", "[#1] logged", "after", "logged"]
    assert error.startswith("[#1] error\n")


def test_jobs_of_other_launchers_are_not_numbered(command, capsys):
    def task(config):
        assert HydraConfig.get().runtime.choices["hydra/launcher"] == "basic"
        with numbered_output():
            print("done")

    assert command("--multirun", "input=x", task=task) == (0, "done\n", "")
