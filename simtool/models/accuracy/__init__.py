"""Accuracy of answers that are sampled, voted on and verified: declared laws, never hidden in a result."""
