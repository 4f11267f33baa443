"""Planners: propose, bound, simulate, prove. OR-Tools lives here and nowhere else."""
