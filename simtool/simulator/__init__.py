"""Simulator: step, replica, cluster. simpy lives here and nowhere else."""
