"""Models: architecture, operators, memory. No hardware, no time."""
