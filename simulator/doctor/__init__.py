"""`paceline doctor`: looks at everything an edge or a verifier needs, and says what to do about what is missing.

`probes` look and never judge, `verdicts` judge and never look, `examination` has the order, `report` shows.
"""
