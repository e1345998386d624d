"""The lab reads records and others' files; chapters, tests and the command line import it, training never does."""
