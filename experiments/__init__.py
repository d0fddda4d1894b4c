"""Programs that a person starts: the `hades` command, presets, benchmarks, pictures and notebooks."""
