"""What happens once per call: checks, conditions, dtypes, parameters, placement, the program."""
