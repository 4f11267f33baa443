"""Task graphs: work on streams that share resources, simulated exactly for piecewise-constant rates."""
