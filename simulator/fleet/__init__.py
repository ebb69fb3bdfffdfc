"""A fleet of thousands of edges, at the level of steps of verifiers and of calls of drafters, not of messages.

docs/fleet.md has the model, its parameters and how far it is off the detailed world of `simulator.virtual`.
"""
