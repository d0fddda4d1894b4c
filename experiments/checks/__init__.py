"""Measurements of properties that a test is too short for."""
