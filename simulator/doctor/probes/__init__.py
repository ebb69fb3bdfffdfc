"""Looks at this machine, at models and at the network. Every wait has a bound; nothing is judged here."""
