"""Networks in users' own tests: the pytest plugin, and what its fixtures are made of; docs/testing.md tells how to use it.

Nothing is imported here: pytest loads the plugin in every run of whoever has Paceline installed.
"""
