"""Run the tools in this process: what they write, print and return.

Their start, threads, signals and the imports of ``--help`` are the subject of tests
with processes of their own.
"""

import contextlib
import io
import logging
import runpy
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

TOOLS = Path(__file__).resolve().parents[1] / 'tools'


class Ended(NamedTuple):
    """What is left of a command, named as ``subprocess`` does."""

    returncode: int
    stdout: str
    stderr: str


def call(tool, *arguments):
    """Run ``tools/<tool>`` with the arguments of a command line; return its code."""
    path = str(TOOLS / tool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [path, *map(str, arguments)])
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as end:
            return end.code or 0
        finally:
            logging.disable(logging.NOTSET)
    return 0


def run(tool, *arguments, folder=None):
    """Do the same in a folder, and keep what it prints; see ``Ended``."""
    out, error = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        if folder is not None:
            patch.chdir(folder)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            code = call(tool, *arguments)
    return Ended(code, out.getvalue(), error.getvalue())
