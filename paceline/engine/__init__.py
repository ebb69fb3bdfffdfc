"""A causal language model with a rollback cache; draft and target share it. See docs/engine.md."""
