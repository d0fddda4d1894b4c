"""Rollouts: playing episodes with batches of policies."""
