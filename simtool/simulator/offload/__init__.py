"""Expert offload: a tiered store under a policy, walked over the experts that each step and layer needs."""
