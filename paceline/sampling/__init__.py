"""How the next token is drawn from logits, the same on both sides of the link."""
