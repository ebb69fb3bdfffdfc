"""Makes drafts: the target writes text, a shallow student learns to guess it, a report says how well it does."""
