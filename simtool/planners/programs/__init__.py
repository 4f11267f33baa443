"""Decisions inside programs of LLM calls: which branches go on."""
