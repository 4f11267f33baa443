"""Experts on GPUs: how often each is held and where, against EPLB's greedy, with a bound; and when moving them pays."""
