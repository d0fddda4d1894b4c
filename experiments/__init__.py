"""What a person launches: the `hades` command, presets, benchmarks, pictures and notebooks."""
