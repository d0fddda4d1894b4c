"""Cal-QL: a near-expert policy and its action values from offline data alone."""

from hades.offline.cal_ql.settings import CalQLSettings
from hades.offline.cal_ql.training import CalQL, CalQLState, Experience, make_cal_ql

__all__ = ["CalQL", "CalQLSettings", "CalQLState", "Experience", "make_cal_ql"]
