"""Outer loops: ways in which a solution climbs an objective."""
