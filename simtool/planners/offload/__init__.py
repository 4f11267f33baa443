"""Planner of expert offload: what to hold in HBM, under which policy, for the most speed or the least memory."""
