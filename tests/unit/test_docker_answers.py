"""Reading a Docker engine: answers of many versions, and each way in which an engine fails to answer."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker  # noqa: F401 - what follows becomes another user for a moment, who may be unable to import it
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.paths import RECORDED
from viacheck.analysis.macvlan_facts import macvlan_supported
from viacheck.host.docker import (
    ContainerMissing,
    ContainerNotRunning,
    EngineUnreachable,
    container_namespace,
    nearest_names,
    read_engine,
)
from viacheck.host.namespace import NotANamespace
from viacheck.model.docker_state import Attachment, DockerEngine, IPAMPool
from viacheck.parsers.docker_api import engine_from_answers
from viacheck.parsers.json_answer import NotAnEngineAnswer

VERSIONS = ("1.11.2", "1.12", "20.10", "26", "28", "29", "rootless")
SECRET = "s3cret-token"


def recorded(version: str) -> dict[str, Any]:
    answers: dict[str, Any] = json.loads((RECORDED / f"engine-{version}.json").read_text())
    return answers


def translated(version: str) -> DockerEngine:
    answers = recorded(version)
    return engine_from_answers(answers["version"], answers["info"], answers["networks"], answers["container"])


# The answers


@pytest.mark.parametrize(
    ("version", "number", "api", "macvlan"),
    [
        ("1.11.2", "1.11.2", "1.23", False),
        ("1.12", "1.12.6", "1.24", True),
        ("20.10", "20.10.24+dfsg1", "1.41", True),
        ("26", "26.1.5+dfsg1", "1.45", True),
        ("28", "28.5.2+dfsg4", "1.51", True),
        ("29", "29.0.1", "1.52", True),
        ("rootless", "27.5.1", "1.47", True),
    ],
)
def test_each_version_is_understood(version: str, number: str, api: str, macvlan: bool) -> None:
    engine = translated(version)
    assert (engine.version, engine.api_version) == (number, api)
    assert macvlan_supported(engine.version) is macvlan
    assert engine.rootless is (version == "rootless")
    assert {"bridge", "host", "none"} <= {network.name for network in engine.networks}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_docker0_bridge_is_found(version: str) -> None:
    network = translated(version).network("bridge")
    assert network is not None
    assert network.bridge == "docker0"
    assert network.pools[0].subnet == "172.17.0.0/16"


def test_a_default_network_on_another_bridge_is_believed() -> None:
    answers = recorded("20.10")
    bridge = next(network for network in answers["networks"] if network["Name"] == "bridge")
    bridge["Options"]["com.docker.network.bridge.name"] = "br0"
    network = engine_from_answers(answers["version"], {}, answers["networks"]).network("bridge")
    assert network is not None
    assert network.bridge == "br0"


@pytest.mark.parametrize("version", ["26", "28"])
def test_a_user_defined_bridge_is_named_after_its_id(version: str) -> None:
    (answer,) = (network for network in recorded(version)["networks"] if network["Name"] == "measure")
    network = translated(version).network("measure")
    assert network is not None
    assert network.bridge == f"br-{answer['Id'][:12]}"
    assert network.ipv6
    # These engines name the gateways of a network only if its operator did.
    assert network.pools == (IPAMPool(subnet="172.30.0.0/24"), IPAMPool(subnet="fd00:30::/64"))


@pytest.mark.parametrize("version", ["1.12", "20.10", "26", "28"])
def test_a_macvlan_network_has_its_parent_and_pool(version: str) -> None:
    network = translated(version).network("macvlan0")
    assert network is not None
    assert (network.driver, network.parent, network.bridge) == ("macvlan", "eth0", None)
    assert network.pools == (IPAMPool(subnet="10.10.40.0/24", gateway="10.10.40.1", ip_range="10.10.40.192/27"),)


@pytest.mark.parametrize(
    ("version", "attachment"),
    [
        ("1.11.2", Attachment(network="none")),
        (
            "20.10",
            Attachment(
                network="macvlan0",
                address="10.10.40.192",
                prefixlen=24,
                gateway="10.10.40.1",
                mac="02:42:0a:0a:28:c0",
            ),
        ),
        (
            "26",
            Attachment(
                network="measure",
                address="172.30.0.2",
                prefixlen=24,
                gateway="172.30.0.1",
                mac="02:42:ac:1e:00:02",
                ipv6_address="fd00:30::2",
            ),
        ),
        (
            "28",
            Attachment(
                network="measure",
                address="172.30.0.2",
                prefixlen=24,
                gateway="172.30.0.1",
                mac="a2:c0:34:fb:ff:d5",
                ipv6_address="fd00:30::2",
            ),
        ),
        (
            "29",
            Attachment(
                network="bridge",
                address="172.17.0.2",
                prefixlen=16,
                gateway="172.17.0.1",
                mac="da:5b:1e:2e:7f:10",
            ),
        ),
    ],
)
def test_the_agents_place_is_read_from_its_networks(version: str, attachment: Attachment) -> None:
    container = translated(version).container
    assert container is not None
    assert container.attachments == (attachment,)


def test_a_running_agent() -> None:
    container = translated("20.10").container
    assert container is not None
    assert (container.name, container.running, container.network_mode) == ("te-agent", True, "macvlan0")
    assert (container.pid, container.restart_policy, container.dns) == (181, "unless-stopped", ("10.10.40.53",))


def test_a_stopped_agent_without_environment() -> None:
    container = translated("rootless").container
    assert container is not None
    assert (container.running, container.pid, container.environment_names) == (False, 0, ())
    assert container.attachments == (Attachment(network="bridge"),)


@pytest.mark.parametrize("version", ["1.12", "20.10", "26", "28"])
def test_no_field_that_docker_29_removed_is_read(version: str) -> None:
    """API 1.52 has a container's addresses in Networks alone (Docker Engine API, version history)."""
    older = recorded(version)
    settings = older["container"]["NetworkSettings"]
    removed = settings.keys() - {"Networks", "Ports", "SandboxID", "SandboxKey"}
    assert removed or version == "1.12"
    newer = recorded(version)
    newer["container"]["NetworkSettings"] = {key: value for key, value in settings.items() if key not in removed}
    read = [
        engine_from_answers(answers["version"], answers["info"], answers["networks"], answers["container"])
        for answers in (older, newer)
    ]
    assert read[0] == read[1]


def test_an_empty_restart_policy_is_no_restart() -> None:
    container = translated("1.11.2").container
    assert container is not None
    assert container.restart_policy == "no"


@pytest.mark.parametrize("version", VERSIONS)
def test_values_of_the_environment_are_never_kept(version: str) -> None:
    kept = json.dumps(dataclasses.asdict(translated(version)))
    assert SECRET not in kept
    if version != "rootless":
        assert "TEAGENT_ACCOUNT_TOKEN" in kept


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside a JSON value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


@given(st.data())
def test_any_other_value_anywhere_in_an_answer_ends_in_the_declared_error(data: st.DataObject) -> None:
    """Each recorded answer, with one value replaced by another JSON value."""
    answers = recorded(data.draw(st.sampled_from((*VERSIONS, "podman-5"))))
    *path, last = data.draw(st.sampled_from(list(places(answers))))
    parent = answers
    for key in path:
        parent = parent[key]
    parent[last] = data.draw(JSON)
    try:
        engine = engine_from_answers(
            answers["version"], answers["info"], answers["networks"], answers["container"],
            of_podman=answers.get("of_podman"),
        )  # fmt: skip
    except NotAnEngineAnswer:
        return
    assert SECRET not in json.dumps(dataclasses.asdict(engine))


@given(JSON, JSON, JSON, JSON)
def test_other_json_ends_in_the_declared_error(version: Any, info: Any, networks: Any, container: Any) -> None:
    with contextlib.suppress(NotAnEngineAnswer):
        engine_from_answers(version, info, networks, container)


def test_unknown_options_of_a_driver_are_not_kept() -> None:
    answers = recorded("20.10")
    answers["networks"][0]["Options"] = {"weave.password": SECRET, "parent": "eth0"}
    engine = engine_from_answers(answers["version"], answers["info"], answers["networks"])
    assert engine.networks[0].options == {"parent": "eth0"}


@pytest.mark.parametrize("version", [{}, {"Version": "1.12"}, {"Version": "", "ApiVersion": "1.24"}, {"ApiVersion": 1}])
def test_what_names_no_version_is_no_engine(version: dict[str, Any]) -> None:
    with pytest.raises(NotAnEngineAnswer, match="the answer to /version has no"):
        engine_from_answers(version, {}, [])


@pytest.mark.parametrize(
    ("version", "supported"),
    [
        ("1.9.1", False),
        ("1.11.2", False),
        ("1.12.0-rc1", True),
        ("1.13.1", True),
        ("v17.03.0-ce", True),
        ("20.10.24+dfsg1", True),
        ("28.0.0-rc.1", True),
        ("29.0.1", True),
        ("dev", True),
        ("0.0.0-20250101120000-abcdef", True),
    ],
)
def test_macvlan_needs_engine_1_12(version: str, supported: bool) -> None:
    assert macvlan_supported(version) is supported


# Asking over a socket


@contextlib.contextmanager
def listening(path: Path, serve: Callable[[socket.socket], object]) -> Iterator[str]:
    """A unix socket on which ``serve`` gets each connection."""

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            serve(self.request)

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    with Server(str(path), Connection) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def replaying(path: Path, version: str) -> Iterator[str]:
    """An engine made of recorded answers, which knows paths of its own API version only."""
    answers = recorded(version)
    prefix = f"/v{answers['version']['ApiVersion']}"
    bodies = {
        "/version": answers["version"],
        f"{prefix}/info": answers["info"],
        f"{prefix}/networks": answers["networks"],
        f"{prefix}/containers/te-agent/json": answers["container"],
        f"{prefix}/containers/json": [{"Names": ["/te-agent"]}, {"Names": ["/web", "/web/alias"]}, {"Names": None}],
    }

    class Request(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = urlsplit(self.path).path in bodies
            body = json.dumps(bodies[urlsplit(self.path).path] if known else {"message": "no such thing"}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Be quiet."""

    with listening(path, lambda connection: Request(connection, ("", 0), None)) as url:  # type: ignore[arg-type]
        yield url


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_is_read_over_its_socket(version: str, tmp_path: Path) -> None:
    with replaying(tmp_path / "s", version) as url:
        assert read_engine(url, "te-agent") == translated(version)


def test_docker_host_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with replaying(tmp_path / "s", "29") as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        assert read_engine().version == "29.0.1"


@pytest.mark.parametrize("name", ["te-agnet", "../../version", "a b?c"])
def test_a_missing_container_names_its_neighbours_and_keeps_the_engine(name: str, tmp_path: Path) -> None:
    with replaying(tmp_path / "s", "20.10") as url, pytest.raises(ContainerMissing) as missing:
        read_engine(url, name)
    assert set(missing.value.nearest) == {"te-agent", "web", "web/alias"}
    assert missing.value.engine.version == "20.10.24+dfsg1"
    assert missing.value.engine.container is None
    assert repr(name) in str(missing.value)


def test_the_nearest_name_comes_first() -> None:
    assert nearest_names("te-agnet", ["web", "db", "te-agent"])[0] == "te-agent"
    assert nearest_names("te-agent", []) == ()


def reason_of(url: str, timeout: float = 5.0) -> tuple[str, str]:
    with pytest.raises(EngineUnreachable) as unreachable:
        read_engine(url, timeout=timeout)
    assert url in str(unreachable.value)
    assert "\n" not in str(unreachable.value)
    return unreachable.value.reason, str(unreachable.value)


def test_no_socket(tmp_path: Path) -> None:
    assert reason_of(f"unix://{tmp_path}/docker.sock")[0] == "socket-missing"


def test_a_socket_without_a_listener(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "s"))
    assert reason_of(f"unix://{tmp_path}/s")[0] == "connection-refused"


def test_a_port_without_a_listener() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert reason_of(f"tcp://127.0.0.1:{unused.getsockname()[1]}")[0] == "connection-refused"


def test_a_socket_of_another_user(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as guarded:
        guarded.bind(str(tmp_path / "s"))
        guarded.listen()
        (tmp_path / "s").chmod(0)
        with ordinary_user():
            assert reason_of(f"unix://{tmp_path}/s")[0] == "permission-denied"


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    ordinary, own = 65534, os.geteuid()
    if own == 0:
        os.seteuid(ordinary)
    try:
        yield
    finally:
        os.seteuid(own)


def test_an_engine_that_does_not_answer_in_time(tmp_path: Path) -> None:
    done = threading.Event()
    with listening(tmp_path / "s", lambda _: done.wait(30)) as url:
        reason, text = reason_of(url, timeout=0.05)
        done.set()
    assert reason == "timeout"
    assert "within 0.05 s" in text


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 7\r\n\r\nhttps!\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    ],
)
def test_something_else_that_listens(answer: bytes, tmp_path: Path) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    with listening(tmp_path / "s", serve) as url:
        assert reason_of(url)[0] == "not-a-docker-engine"


def test_something_that_hangs_up(tmp_path: Path) -> None:
    with listening(tmp_path / "s", lambda connection: connection.recv(65536)) as url:
        assert reason_of(url)[0] == "other"


def test_an_invalid_address() -> None:
    assert reason_of("pigeon://coop")[0] == "bad-address"


@pytest.mark.parametrize(
    "text", ["[]", '{"auths": {"registry": "secret"}}', '{"proxies": "none"}', '{"HttpHeaders": 1}']
)
def test_a_malformed_file_for_docker_clients_is_one_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text(text)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    reason, said = reason_of("unix:///nowhere")
    assert reason == "bad-configuration"
    assert f"{tmp_path}/config.json is not a configuration of a Docker client" in said
    assert "\n" not in said
    assert "secret" not in said
    (tmp_path / "config.json").write_text("{")
    assert reason_of("unix:///nowhere")[0] == "socket-missing", "the SDK passes over what is no JSON"


# The way into a container


def test_a_process_without_number_is_a_stopped_container() -> None:
    with pytest.raises(ContainerNotRunning, match="te-agent is not running"):
        container_namespace(0, "te-agent")


def test_a_process_that_has_ended_is_a_stopped_container(tmp_path: Path) -> None:
    with pytest.raises(ContainerNotRunning, match="process 4711 has ended"):
        container_namespace(4711, "te-agent", proc=str(tmp_path))


def test_a_file_that_is_not_a_namespace(tmp_path: Path) -> None:
    (tmp_path / "1/ns").mkdir(parents=True)
    (tmp_path / "1/ns/net").touch()
    with pytest.raises(NotANamespace):
        container_namespace(1, proc=str(tmp_path))
