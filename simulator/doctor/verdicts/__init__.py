"""What findings mean: pure functions from what a probe found to a check with its advice."""
