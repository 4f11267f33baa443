"""Programs of LLM calls: what branching requests share."""
