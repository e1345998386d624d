"""`python -m dcil COMMAND`; see `dcil.cli.main`."""

import io
import os
import sys

from dcil.cli.main import main

if __name__ == "__main__":
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by `>&-`: discard the output
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # like stderr: a file name need not be valid UTF-8
    sys.exit(main())
