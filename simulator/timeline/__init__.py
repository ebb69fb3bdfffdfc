"""Timelines of simulated sessions, and the command that makes one; the timeline itself is `paceline.timeline`."""
