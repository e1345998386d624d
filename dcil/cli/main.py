"""The command line: `python -m dcil COMMAND`. Each command is one file of this folder: its parser, and what it calls.

Every error that the user can fix ends in one line, `dcil: error: ...`, and exit code 2.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from dcil.cli import authors, chapter, claims, export, lists, predict, queue, records, status, train
from dcil.cli.options import Parser, refuse_unknown
from dcil.errors import DcilError, reason
from dcil.io.intake import plain
from dcil.io.messages import say
from dcil.stopping import Stop, Stopped

COMMANDS = (train, export, predict, records, queue, authors, chapter, claims, status, lists)


def build_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(prog="python -m dcil", description="Dual-path sparse training, and the records of its runs.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0 for success, 2 for an error that the user can fix, 69 if another process trains the run, 75 if the time limit was
    reached first, 129, 130 and 143 when interrupted by a signal, 141 when the reader of the output closed the pipe.
    """
    try:
        args, extra = build_parser().parse_known_args(argv)
        refuse_unknown(args.parser, extra)
        code = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # as in `| head`, which closes the pipe early; the flush at exit must not fail either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE, as shells report it
    except Stopped as stopped:
        say(f"dcil: {stopped}")
        return stopped.code
    except UnicodeEncodeError as error:
        say(f"dcil: error: {error.object[error.start : error.end]!r} is not UTF-8; rename the file or folder named so")
        return 2
    except DcilError as error:
        say(f"dcil: error: {plain(str(error))}")  # one line, whatever a file name contains
        return error.code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"dcil: error: {plain(where + reason(error))}")
        return 2
    except ModuleNotFoundError as error:
        name, _, part = str(error.name).partition(".")
        if name == "dcil":
            raise
        lacks = f"{error.name}, which the installed {name} does not have" if part else f"{name}, which is not installed"
        say(
            f"dcil: error: this command needs the package {lacks}; in the book's folder: "
            "python -m pip install -e '.[book]'"
        )
        return 2
    except KeyboardInterrupt as error:
        number = next(iter(error.args), signal.SIGINT)  # `Stop` raises it with the signal's number
        say(f"\ndcil: interrupted by {Stop.SIGNALS[number]}")
        return 128 + number
