"""A pytest plugin: where CI is set, a skipped test is a failed one.

A skip says that a service is missing. On a laptop that is useful to know; in CI it would mean that
nobody ever runs the test, and nobody would see it.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


def counts_skips() -> bool:
    """Whether a skip is a failure: CI is set to anything but empty, 0 or false."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def _fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: with CI set, a skip is a failure. {reason}"


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of one test into a failure; an expected failure stays what it is."""
    report = yield
    if report.skipped and counts_skips() and not hasattr(report, "wasxfail"):
        _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module into a failure."""
    report = yield
    if report.skipped and counts_skips():
        _fail(report)
    return report
