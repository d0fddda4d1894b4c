"""Making, measuring and verifying of the datasets that come with the package."""
