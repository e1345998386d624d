"""What reads run records and chapters; used by chapters, tests and the command line, never by training."""
