"""Reading run records: tables of runs, comparisons paired by seed, how steadily a run trained."""
