"""Offline data: transitions, teachers, and density estimates."""

from __future__ import annotations

from hades.offline.teacher import PolicyTeacher, Teacher, TeacherError
from hades.offline.transitions import OfflineDataError, Transitions

__all__ = ["OfflineDataError", "PolicyTeacher", "Teacher", "TeacherError", "Transitions"]
