"""A broker in memory, and the way to it: the twin of a real one, held to the same contract suite."""
