"""Offline data: transitions, teachers, densities, and what it takes to make them."""

from __future__ import annotations

from hades.offline.teacher import Teacher, TeacherError

__all__ = ["Teacher", "TeacherError"]
