"""Guesses from what a text has said before: n-gram indices without weights, tensors or clocks, for the edge and the cloud."""
