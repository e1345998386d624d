"""What records say: tables of runs, pairs at equal seeds, how steadily one trained."""
