"""Refuse changes under records/ other than new records: existing records are history, and the site publishes them.

    python .ci/history.py origin/main       # what HEAD brings since it left that branch
"""

import re
import subprocess
import sys

RECORD = re.compile(r"records/\w[\w.+-]*\.json", re.ASCII)  # a file's name, in that folder itself
ADDED, REGULAR = "A", "100644"  # git's status letter of an added file, and its mode of a regular one


def refused(base: str) -> list[str]:
    """Return the changed paths under records/ that are not additions of regular *.json files, each with the reason."""
    command = ["git", "diff", "--raw", "-z", "--no-renames", f"{base}...HEAD", "--", "records"]
    said = subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="backslashreplace")
    fields, found = said.split("\0"), []
    for about, path in zip(fields[:-1:2], fields[1::2], strict=True):
        _, mode, _, _, what = about.split()
        if what != ADDED:
            found.append(f"{path!a} was there already, and was changed, removed or replaced")
        elif mode != REGULAR or not RECORD.fullmatch(path):
            found.append(f"{path!a} (mode {mode}) is no regular file named records/RUN-ID.json")
    return found


if __name__ == "__main__":
    if wrong := refused(sys.argv[1]):
        sys.exit("\n".join(["records/ takes new records and nothing else:", *wrong]))
    print("every change under records/ is a new record")
