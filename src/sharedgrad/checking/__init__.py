"""Check: say which number is wrong, and which mistake explains it."""

from sharedgrad.checking.api import check_numbers
from sharedgrad.checking.report import Explanation, Report

__all__ = ["Explanation", "Report", "check_numbers"]
