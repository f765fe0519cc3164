"""A real Docker engine in a lab's host namespace: it runs, it can be read, and it leaves nothing behind."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netns_lab import cgroups
from netns_lab.docker_engine.daemon import DockerDaemon, EngineFailed
from netns_lab.docker_engine.requirements import missing_packages, missing_requirement
from netns_lab.pid_namespace import contain_processes
from tests.helpers.paths import ROOT
from tests.helpers.processes import descendants
from viacheck.host import syscalls
from viacheck.host.docker import (
    ContainerNotRunning,
    EngineUnreachable,
    container_namespace,
    read_engine,
)
from viacheck.host.namespace import Namespace
from viacheck.model.docker_state import Attachment, DockerContainer, IPAMPool
from viacheck.model.intent_file import parse_intent
from viacheck.packets.traffic_tests import AgentRestarted
from viacheck.targets.base import Services
from viacheck.targets.namespace_target import NamespaceTarget

UNAVAILABLE = missing_requirement()
needs_engine = pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))
GONE_WITHIN = 30.0


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    """A host with an uplink whose other end is silent."""
    namespace = Namespace.create("host")
    for argv in (
        ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far0"],
        ["ip", "address", "add", "10.10.40.9/24", "dev", "eth0"],
        ["ip", "link", "set", "far0", "up"],
        ["ip", "link", "set", "eth0", "up"],
    ):
        assert namespace.run(argv).ok
    yield namespace
    namespace.close()


@pytest.fixture(scope="module")
def engine(host: Namespace) -> Iterator[DockerDaemon]:
    with DockerDaemon.start(host) as running:
        yield running


@contextlib.contextmanager
def agent(engine: DockerDaemon, name: str = "te-agent", network: str = "bridge", **more: object) -> Iterator[int]:
    pid = engine.containers.run(name, network=network, **more)  # type: ignore[arg-type]
    try:
        yield pid
    finally:
        engine.containers.remove(name)


def read_agent(engine: DockerDaemon, name: str = "te-agent") -> DockerContainer:
    container = read_engine(engine.base_url, name).container
    assert container is not None
    return container


@needs_engine
def test_the_agent_reaches_its_bridge_and_its_facts_are_read(engine: DockerDaemon, host: Namespace) -> None:
    with agent(engine, environment={"TEAGENT_ACCOUNT_TOKEN": "s3cret"}):
        facts = read_engine(engine.base_url, "te-agent")
        assert facts.container is not None
        assert facts.container.running
        assert facts.container.environment_names == ("TEAGENT_ACCOUNT_TOKEN",)
        assert "s3cret" not in repr(facts)
        (attachment,) = facts.container.attachments
        assert (attachment.address, attachment.gateway, attachment.prefixlen) == ("172.17.0.2", "172.17.0.1", 16)
        bridge = facts.network("bridge")
        assert bridge is not None
        assert bridge.pools == (IPAMPool(subnet="172.17.0.0/16", gateway="172.17.0.1"),)
        assert host.run(["ip", "link", "show", "dev", bridge.bridge or ""]).ok
        ping = engine.containers.execute("te-agent", ["ping", "-c", "1", "-W", "5", "172.17.0.1"])
        assert ping.ok, ping


@needs_engine
def test_the_engine_masquerades_in_the_labs_namespace(engine: DockerDaemon, host: Namespace) -> None:
    rules = host.run(["iptables-save", "-t", "nat"]).stdout
    assert "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE" in rules


@needs_engine
@pytest.mark.parametrize("folder", ["/run", "/etc/docker"])
def test_the_engine_writes_beside_the_machines_files(folder: str, engine: DockerDaemon) -> None:
    assert os.stat(f"{engine.root}{folder}").st_dev != os.stat(folder).st_dev


@needs_engine
def test_the_agents_namespace_is_found_from_outside(engine: DockerDaemon) -> None:
    with agent(engine) as pid, contextlib.closing(engine.containers.namespace("te-agent")) as namespace:
        assert os.path.samestat(os.fstat(namespace.net_fd), os.stat(f"/proc/{pid}/ns/net"))
        assert "172.17.0.2" in namespace.run(["ip", "-brief", "address", "show", "dev", "eth0"]).stdout
        # A target opens the process number of the engine's answer in the engine's own /proc.
        inner = read_agent(engine).pid
        assert inner != pid
        with contextlib.closing(container_namespace(inner, "te-agent", engine.proc)) as again:
            assert os.path.samestat(os.fstat(again.net_fd), os.fstat(namespace.net_fd))


@needs_engine
def test_a_restarted_agent_has_another_process_and_another_namespace(engine: DockerDaemon) -> None:
    with agent(engine) as before, contextlib.closing(engine.containers.namespace("te-agent")) as old:
        after = engine.containers.restart("te-agent")
        assert after != before
        with contextlib.closing(engine.containers.namespace("te-agent")) as new:
            assert not os.path.samestat(os.fstat(old.net_fd), os.fstat(new.net_fd))
            assert "172.17.0.2" in new.run(["ip", "-brief", "address"]).stdout


@needs_engine
def test_packets_of_a_container_that_was_restarted_meanwhile_show_nothing(
    engine: DockerDaemon, host: Namespace, tmp_path: Path
) -> None:
    intent = parse_intent(
        {
            "schema": 1, "site": {"name": "restarted"}, "uplinks": {"eth0": {"gateway": "10.10.40.1"}},
            "agent": {"container": "te-agent", "attach": {"mode": "nat", "network": "bridge"}},
            "egress": {"uplink": "eth0"}, "probe": {"target": "198.51.100.1", "timeout": "200ms"},
        },
        source="test",
    )  # fmt: skip
    services = Services(engine_url=engine.base_url, proc=engine.proc)
    tmp_path.chmod(0o700)
    with agent(engine):
        target = NamespaceTarget("local:restarted", "local", intent, host, services=services)
        traffic = target.traffic_tests(tmp_path)
        try:
            unanswered = traffic.agent("icmp")
            assert (unanswered.sent, unanswered.answered, target.agent_was_restarted()) == (3, 0, False)
            engine.containers.restart("te-agent")
            with pytest.raises(AgentRestarted, match="the container te-agent was restarted"):
                traffic.full_size()
        finally:
            traffic.close()
            target.leave_agent()


@needs_engine
def test_a_stopped_agent_has_no_namespace(engine: DockerDaemon) -> None:
    with agent(engine):
        engine.containers.stop("te-agent")
        assert not read_agent(engine).running
        assert engine.containers.pid("te-agent") == 0
        with pytest.raises(ContainerNotRunning, match="te-agent"):
            engine.containers.namespace("te-agent")
        assert engine.containers.start("te-agent") > 0
        assert read_agent(engine).running


@needs_engine
def test_network_none_has_no_route(engine: DockerDaemon) -> None:
    with agent(engine, network="none"):
        container = read_agent(engine)
        assert container.network_mode == "none"
        assert container.attachments == (Attachment(network="none"),)
        with contextlib.closing(engine.containers.namespace("te-agent")) as namespace:
            assert namespace.run(["ip", "route", "show"]).stdout == ""
            assert len(namespace.run(["ip", "-oneline", "link", "show"]).stdout.splitlines()) == 1


@needs_engine
def test_a_macvlan_network_on_the_uplink(engine: DockerDaemon) -> None:
    engine.networks.create_macvlan("macvlan0", "eth0", "10.10.40.0/24", "10.10.40.1", "10.10.40.192/27")
    network = read_engine(engine.base_url).network("macvlan0")
    assert network is not None
    assert (network.driver, network.parent) == ("macvlan", "eth0")
    assert network.pools == (IPAMPool(subnet="10.10.40.0/24", gateway="10.10.40.1", ip_range="10.10.40.192/27"),)
    with agent(engine, network="macvlan0", address="10.10.40.200"):
        assert [a.address for a in read_agent(engine).attachments] == ["10.10.40.200"]
        with contextlib.closing(engine.containers.namespace("te-agent")) as namespace:
            assert "macvlan" in namespace.run(["ip", "-details", "link", "show", "dev", "eth0"]).stdout


@needs_engine
def test_a_user_defined_bridge_network(engine: DockerDaemon, host: Namespace) -> None:
    engine.networks.create_bridge("measure", "172.30.0.0/24", "172.30.0.254", bridge="br-measure")
    network = read_engine(engine.base_url).network("measure")
    assert network is not None
    assert network.bridge == "br-measure"
    assert "172.30.0.254/24" in host.run(["ip", "-brief", "address", "show", "dev", "br-measure"]).stdout
    engine.networks.create_bridge("other", "172.31.0.0/24")
    other = read_engine(engine.base_url).network("other")
    assert other is not None
    assert host.run(["ip", "link", "show", "dev", other.bridge or ""]).ok
    with agent(engine, network="measure", address="172.30.0.7", dns=["172.30.0.254"]):
        assert read_agent(engine).dns == ("172.30.0.254",)
        assert engine.containers.execute("te-agent", ["ping", "-c", "1", "-W", "5", "172.30.0.254"]).ok


@needs_engine
def test_the_restart_policy_decides_whether_an_agent_comes_back_after_an_engine_restart(engine: DockerDaemon) -> None:
    with agent(engine, "stays", restart="unless-stopped") as before, agent(engine, "goes"):
        engine.restart()
        assert read_agent(engine, "stays").running
        assert engine.containers.pid("stays") not in (0, before)
        assert not read_agent(engine, "goes").running


@needs_engine
def test_a_stopped_engine_is_unreachable_and_comes_back(engine: DockerDaemon) -> None:
    engine.stop_daemon()
    with pytest.raises(EngineUnreachable) as unreachable:
        read_engine(engine.base_url)
    assert unreachable.value.reason in ("socket-missing", "connection-refused")
    with pytest.raises(EngineFailed, match="dockerd is not running"):
        engine.containers.run("te-agent")
    engine.start_daemon()
    assert read_engine(engine.base_url).network("bridge") is not None


@needs_engine
def test_several_engines_do_not_see_each_other(engine: DockerDaemon) -> None:
    with (
        contextlib.closing(Namespace.create("other")) as other,
        DockerDaemon.start(
            other, subnet="172.18.0.0/24", gateway="172.18.0.254", settings={"iptables": False}
        ) as second,
        agent(engine),
        agent(second),
    ):
        assert [a.address for a in read_agent(engine).attachments] == ["172.17.0.2"]
        assert [a.gateway for a in read_agent(second).attachments] == ["172.18.0.254"]
        assert "MASQUERADE" not in other.run(["iptables-save", "-t", "nat"]).stdout


@needs_engine
def test_the_engine_sees_the_hosts_private_files(tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 10.10.40.53\n")

    def prepare() -> None:
        syscalls.mount("tmpfs", "/run", "tmpfs", options="mode=755")
        syscalls.mount("sysfs", "/sys", "sysfs")
        syscalls.mount(str(resolver), "/etc/resolv.conf", flags=syscalls.MS_BIND)

    with (
        contextlib.closing(Namespace.create("host", prepare)) as namespace,
        DockerDaemon.start(namespace) as running,
        agent(running),
    ):
        assert "10.10.40.53" in running.containers.execute("te-agent", ["cat", "/etc/resolv.conf"]).stdout


@needs_engine
def test_a_daemon_that_does_not_start_reports_why_and_leaves_nothing() -> None:
    before = own_cgroups(os.getpid()), descendants(os.getpid())
    with contextlib.closing(Namespace.create("host")) as namespace, pytest.raises(EngineFailed) as failed:
        DockerDaemon.start(namespace, settings={"storage-driver": "no-such-driver"})
    assert "exit code 1" in str(failed.value)
    assert "no-such-driver" in str(failed.value)
    assert (own_cgroups(os.getpid()), descendants(os.getpid())) == before


# Leftovers


HARNESS = """
import sys
from viacheck.installation import add_to_import_path
add_to_import_path()
from viacheck.host.namespace import Namespace
from netns_lab.docker_engine.daemon import DockerDaemon
host = Namespace.create("host")
engine = DockerDaemon.start(host)
pids = engine.containers.run("te-agent"), engine.containers.run("second", network="none")
for name in sys.argv[1:]:
    engine.containers.pause(name)
print(engine.pid, *pids, flush=True)
sys.stdin.readline()
engine.close()
print("closed", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def harness(*paused: str) -> Iterator[tuple[subprocess.Popen[bytes], set[int]]]:
    """Start another process that runs an engine with two containers; yield it and its descendants."""
    process = subprocess.Popen(
        [sys.executable, "-c", HARNESS, *paused],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        pids = {int(pid) for pid in process.stdout.readline().split()}
        family = descendants(process.pid)
        assert len(pids) == 3
        assert pids <= family
        yield process, family
    finally:
        process.kill()
        process.communicate()


def own_cgroups(pid: int) -> int:
    """Return the number of cgroup folders of a process's engines."""
    return sum(1 for _ in Path("/sys/fs/cgroup").rglob(f"{cgroups.PREFIX}{pid}-*"))


def namespaces_of(pids: set[int]) -> set[tuple[str, int]]:
    namespaces = set()
    for pid in pids:
        for kind in ("net", "mnt", "pid"):
            with contextlib.suppress(OSError):
                namespaces.add((kind, os.stat(f"/proc/{pid}/ns/{kind}").st_ino))
    return namespaces


@contextlib.contextmanager
def pinned(pids: set[int]) -> Iterator[set[tuple[str, int]]]:
    """Yield the namespaces of some processes that are not this process'; held open, none gives its number away."""
    with contextlib.ExitStack() as pins:
        for kind, pid in itertools.product(("net", "mnt", "pid"), pids):
            with contextlib.suppress(OSError):
                pins.enter_context(open(f"/proc/{pid}/ns/{kind}", "rb"))
        yield namespaces_of(pids) - namespaces_of({os.getpid()})


def all_processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdecimal()}


class Departure:
    """Waits for processes to end, by descriptors that no later process with the same number can take over."""

    def __init__(self, pids: set[int]) -> None:
        self._pidfds: dict[int, int] = {}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                self._pidfds[os.pidfd_open(pid)] = pid

    def still_there(self) -> set[int]:
        """Wait until all have ended or the time is up; return the processes that have not."""
        deadline = time.monotonic() + GONE_WITHIN
        poll = select.poll()
        for fd in self._pidfds:
            poll.register(fd, select.POLLIN)
        while self._pidfds and (remaining := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(remaining * 1000):
                poll.unregister(fd)
                os.close(fd)
                del self._pidfds[fd]
        return set(self._pidfds.values())


def commands_of(pids: set[int]) -> set[str]:
    commands = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            commands.add(Path(f"/proc/{pid}/comm").read_text().strip())
    return commands


@needs_engine
def test_nothing_stays_after_sigkill() -> None:
    with harness("second") as (process, family), pinned(family) as theirs:
        running = {"dockerd", "containerd", "containerd-shim", "sleep"}
        assert running <= commands_of(family)
        assert {kind for kind, _ in theirs} == {"net", "mnt", "pid"}
        departure = Departure(family)
        process.send_signal(signal.SIGKILL)
        assert departure.still_there() == set()
        process.wait()
        # A mount ends with the mount namespace that holds it.
        assert not theirs & namespaces_of(all_processes())
        assert own_cgroups(process.pid) == 0


@needs_engine
def test_nothing_stays_after_close() -> None:
    with harness() as (process, family), pinned(family) as theirs:
        departure = Departure(family)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"closed\n"
        assert departure.still_there() == set()
        assert own_cgroups(process.pid) == 0
        # The host's namespace belongs to the other process, which still runs.
        assert {kind for kind, _ in theirs & namespaces_of(all_processes())} <= {"net"}
        assert process.poll() is None


@needs_engine
def test_sweeping_leaves_running_engines_alone(engine: DockerDaemon) -> None:
    with agent(engine) as pid:
        cgroups.sweep()
        assert cgroups.PREFIX in Path(f"/proc/{pid}/cgroup").read_text()
        assert engine.containers.execute("te-agent", ["true"]).ok


@needs_engine
def test_a_second_close_does_nothing(host: Namespace) -> None:
    with contextlib.closing(Namespace.create("short")) as namespace:
        engine = DockerDaemon.start(namespace)
        engine.close()
        engine.close()
        with pytest.raises(EngineFailed):
            engine.containers.run("te-agent")


# Machines that cannot run an engine


def test_an_ordinary_user_needs_root() -> None:
    ourselves = os.geteuid()
    if ourselves == 0:
        os.seteuid(65534)
    try:
        assert missing_requirement() == "an engine lab needs root: dockerd mounts file systems and makes cgroups"
    finally:
        os.seteuid(ourselves)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("netns_lab.docker_engine.requirements.SEARCH_PATH", str(tmp_path))
    monkeypatch.setattr("netns_lab.docker_engine.requirements.BUSYBOX", sys.executable)
    assert missing_packages() == ["busybox-static", "docker.io", "iptables"]


@needs_engine
def test_it_runs_and_ends_where_the_host_has_a_process_namespace_of_its_own() -> None:
    with contextlib.closing(Namespace.create("daemons")) as host:
        end = contain_processes(host)
        with DockerDaemon.start(host) as nested, agent(nested) as pid:
            assert nested.containers.pid("te-agent") == pid
            with contextlib.closing(nested.containers.namespace("te-agent")) as namespace:
                assert os.path.samestat(os.fstat(namespace.net_fd), os.stat(f"/proc/{pid}/ns/net"))
        end()
