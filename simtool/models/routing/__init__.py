"""Expert routing: who is chosen, in traces recorded or sampled; what a batch of them needs, and who predicts it."""
