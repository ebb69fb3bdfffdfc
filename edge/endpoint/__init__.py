"""The OpenAI-compatible HTTP endpoint of the edge agent."""
