"""The drafting agent that runs beside its user."""
