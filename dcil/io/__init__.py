"""File I/O: files are written atomically, and untrusted input is read within limits."""
