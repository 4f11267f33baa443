"""`simtool plan --pareto A,B` and `simtool plan --capacity`."""
