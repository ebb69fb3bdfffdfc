"""The verifier: runs the target model for many edges at once."""
