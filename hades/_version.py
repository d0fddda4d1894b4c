"""Version of the package, read by the build and written into every dataset file."""

__version__ = "0.2.0"
