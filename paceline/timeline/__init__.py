"""The timeline of one session: what drafted, travelled, waited, verified and became text, and when.

    facts (a client's trace, or the log of a simulated world) -> timeline_of -> Timeline -> trace events, SVG, PNG

It lives here and not in the simulator because `paceline generate` draws its own sessions, and programs do not import the
simulator.
"""
