"""Schedules with proofs: tasks on unlike processors, and the repeating layer whose operations share one device."""
