"""`python -m dcil COMMAND`; see `dcil.cli.main`."""

import io
import sys

from dcil.cli.main import main

if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: a file's name may be no UTF-8
    sys.exit(main())
