"""Which guesses of a simulated draft are right: recorded from real pairs of draft and target, or drawn."""
