"""Steps as task graphs: a layer's kernels under an overlap policy, and what that saves a step."""
