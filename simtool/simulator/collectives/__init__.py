"""Collectives as task graphs on a topology, their faults, and peers that join and leave."""
