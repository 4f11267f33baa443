"""Validation: measured runs, ours and other tools', compared with their prediction."""
