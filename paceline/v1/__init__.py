"""Python stubs of proto/paceline/v1, compiled when the package is built; never committed."""
