"""The verbs of the `hades` command, a module each."""
