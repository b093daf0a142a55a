"""A plugin of pytest, by which the outcome of each test is a row at once.

``-p asv_bench.staged.outcomes --rows FILE --stage N``
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from .rows import TAIL, Rows


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("staged")
    group.addoption("--rows", type=Path, required=True, help="result file")
    group.addoption("--stage", type=int, default=1)
    if (
        importlib.util.find_spec("pytest_timeout") is None
    ):  # an option of the project, in a place without pytest-timeout
        parser.addini("timeout", "not used")


def pytest_configure(config: pytest.Config) -> None:
    worker = hasattr(config, "workerinput")
    config.pluginmanager.register(Health() if worker else Outcomes(config), "staged-outcomes")


class Health:
    """In a worker of xdist: it ends where the device does not answer any more, and xdist starts another one."""

    def __init__(self) -> None:
        self.failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed

    def pytest_runtest_logfinish(self) -> None:
        if self.failed and not device_answers():
            os._exit(1)
        self.failed = False


def device_answers() -> bool:
    """After an illegal access of memory, say, nothing works in the process that made it."""
    import torch

    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
        torch.ones(1, device="cuda").item()
    except Exception:
        return False
    return True


class Outcomes:
    """In the process that collects reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.rows = Rows(config.getoption("rows"), config.getoption("stage"))
        self.alone = not config.getoption("numprocesses", None)
        self.known: set[str] = set()
        self.passed = self.failed = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self.alone:
            self.collected([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self.collected(ids)

    def collected(self, ids: list[str]) -> None:
        fresh = set(ids) - self.known
        self.known |= fresh
        if fresh:
            self.rows.add("collected", tests=sorted(fresh))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.rows.add(report.nodeid, outcome="failed", traceback=str(report.longrepr)[-TAIL:])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            values: dict[str, Any] = {"outcome": report.outcome, "seconds": round(report.duration, 2)}
            if report.failed:
                values["traceback"] = str(report.longrepr)[-TAIL:]
            if report.skipped:
                values["reason"] = str(report.longrepr)[-200:]
            self.rows.add(report.nodeid, **values)
