"""Paceline's own programs in virtual time: the real client, session machines, scheduler and service on simulated machines.

Fake are time, sockets and models, and nothing else; docs/simulator.md tells how to use it.
"""
