"""simtool: a discrete-event performance simulator and plan optimizer for LLM inference."""
