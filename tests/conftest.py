"""What several test modules use: the matrix of labs, how tests are shared among workers, and how long they take."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from netns_lab.lab_specs import parse_labs
from reports.report_files import RESULT
from tests.helpers import long_runs
from tests.helpers.durations import ProcessorTime, duration_lines
from tests.helpers.evidence_text import sections
from tests.helpers.fault_matrix import ENGINE_LABS, LABS, OPTIONS
from tests.helpers.forked_runs import end_servers, start_servers
from tests.helpers.forked_test_workers import fork_test_workers
from tests.helpers.front_door import Finished, report_folders, run_once, viacheck
from tests.helpers.paths import ROOT
from tests.helpers.scheduling import TestFileScheduling, place, start_workers

if TYPE_CHECKING:
    from viacheck.model.result import RunResult
    from viacheck.targets.namespace_target import NamespaceTarget

TESTS = str(ROOT / "tests")
QUICK = str(ROOT / "tests" / "unit")
VIRTUAL_MACHINES = ROOT / "tests" / "vm"
OTHER_RELEASES = [ROOT / "tests" / "labs" / name for name in ("test_firewall_reloads.py", "test_host_faults.py")]
FIREWALLD = ROOT / "tests" / "labs" / "test_field_firewalld.py"
MATRIX_TESTS = "test_fault_matrix.py"
STARTED = ProcessorTime.now()

pytest.register_assert_rewrite("tests.helpers.situation")
# A busy machine is no fault of an example: hypothesis judges what a parser does, not how long it takes.
settings.register_profile("viacheck", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("viacheck")


def pytest_configure() -> None:
    take_signals()


def take_signals() -> None:
    """Undo that a shell starts its background jobs with some signals ignored: what a test starts would inherit it."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_unconfigure() -> None:
    end_servers()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("viacheck tests")
    group.addoption("--quick", action="store_true", help="run tests/unit only: no root, no labs")
    long_runs.add_options(group)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Choose the folder, and share a run of all tests among workers unless the command line says how."""
    option = config.option
    if option.fuzz is not None:
        config.pluginmanager.register(long_runs.Fuzzing(option.fuzz))
        # With workers each would have its own clock.
        option.numprocesses = option.numprocesses or 0
    if option.quick and config.args == [TESTS]:
        config.args[:] = [QUICK]
    if option.vm and config.args == [TESTS]:
        config.args[:] = [str(VIRTUAL_MACHINES)]
    if hasattr(config, "workerinput"):
        return
    alone = option.usepdb or option.collectonly or option.capture == "no" or option.numprocesses is not None
    if config.args in ([TESTS], [QUICK]) and not alone:
        # Labs wait for more than half of their time.
        start_workers(config, spare=1 if option.quick else 5)
        take_signals()
        if not option.quick:
            start_servers(option.numprocesses)
        fork_test_workers(option.numprocesses, Path(config.args[0]))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what takes minutes unless it is asked for: virtual machines, firewalld, the base root of forky."""
    asked_for = dict.fromkeys(OTHER_RELEASES, config.option.releases) | {
        VIRTUAL_MACHINES: config.option.vm, FIREWALLD: config.option.soak
    }  # fmt: skip
    return None if asked_for.get(collection_path, True) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: place(item.nodeid))


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    return TestFileScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    report_folders.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += sections(folder / RESULT for folder in report_folders)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: Any) -> Iterator[None]:
    yield
    ended = [report for entries in terminalreporter.stats.values() for report in entries]
    of_tests = [report for report in ended if isinstance(report, pytest.TestReport)]
    terminalreporter.section("how long each part took (added up over workers)")
    for line in duration_lines(of_tests, ProcessorTime.now().share_since(STARTED)):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The run over every lab and every fault that needs no engine; the workers of pytest-xdist share one run."""
    labs = ",".join(LABS)
    return run_once(tmp_path_factory, "matrix", lambda folder: viacheck("--lab", labs, *OPTIONS, report_dir=folder))


@pytest.fixture(scope="session")
def engine_matrix(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The run over every fault that needs an engine, and the healthy labs of these faults; workers share it."""
    options = ("--lab", ",".join(ENGINE_LABS), "-n", "3", "-q")
    return run_once(tmp_path_factory, "engine-matrix", lambda folder: viacheck(*options, report_dir=folder))


@pytest.fixture(scope="session")
def judged_labs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Sequence[str]], RunResult]:
    """Judges labs of the matrix, by a run of their own; or reads the matrix, if it is judged in these tests anyway."""

    def judge(labs: Sequence[str]) -> RunResult:
        assert set(labs) <= set(LABS)
        if any(item.path.name == MATRIX_TESTS for item in request.session.items):
            run: Finished = request.getfixturevalue("matrix")
        else:
            run = viacheck("--lab", ",".join(labs), *OPTIONS, report_dir=tmp_path_factory.mktemp("labs"))
        return run.outcome

    return judge


@pytest.fixture
def opened() -> Iterator[Callable[[str], NamespaceTarget]]:
    """Opens labs by name, and closes them after the test."""
    with contextlib.ExitStack() as closing:

        def open_one(name: str) -> NamespaceTarget:
            (spec,) = parse_labs(name)
            target = spec.open()
            closing.callback(target.close)
            return target

        yield open_one
