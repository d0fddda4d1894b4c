"""Offline data: transitions, teachers, densities, and what it takes to make them."""

from __future__ import annotations

from hades.offline.teacher import Teacher, TeacherError
from hades.offline.transitions import OfflineDataError, Transitions

__all__ = ["OfflineDataError", "Teacher", "TeacherError", "Transitions"]
