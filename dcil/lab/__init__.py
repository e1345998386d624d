"""The lab reads run records and others' files. Chapters, tests and the command line import it; training never does."""
