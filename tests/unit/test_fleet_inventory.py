"""Inventories as people have them, and the site files of their hosts."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.helpers.hand_made import SITE
from viacheck.fleet.fleet_run import folder_name
from viacheck.fleet.inventory import FleetHost, read_inventory
from viacheck.fleet.site_files import site_files, toml_value
from viacheck.model.exit_status import UsageError

PLAIN = "# a comment\nberlin-7\n  bonn-2   # a name of ssh_config\n"
INI = """\
lone ansible_host=192.0.2.9
[agents]
berlin-7 ansible_host=192.0.2.7 ansible_port=2222 uplink="wlan 0"
bonn-2
[germany:children]
agents
[germany:vars]
ansible_user=probe
[all:vars]
gateway = 10.0.0.1
"""
ANSIBLE_YAML = """\
all:
  vars: {gateway: 10.0.0.1}
  hosts: {lone: {ansible_host: 192.0.2.9}}
  children:
    germany:
      vars: {ansible_user: probe}
      children:
        agents:
          hosts:
            berlin-7: {ansible_host: 192.0.2.7, ansible_port: 2222, uplink: wlan 0}
            bonn-2:
"""
NORNIR = (
    "berlin-7:\n  hostname: 192.0.2.7\n  port: 2222\n  username: probe\n  groups: [agents]\n  data: {uplink: wlan0}\n"
)


@pytest.fixture(autouse=True)
def without_ansible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask no ansible-inventory, also where there is one."""
    monkeypatch.setattr("viacheck.fleet.inventory._has_ansible", lambda: False)


@pytest.fixture
def with_ansible(monkeypatch: pytest.MonkeyPatch, without_ansible: None) -> None:
    """Ask the ansible-inventory of the Python that runs the tests."""
    monkeypatch.setattr("viacheck.fleet.inventory._has_ansible", lambda: True)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def written(folder: Path, text: str, name: str = "hosts") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_list_of_names(tmp_path: Path) -> None:
    hosts = read_inventory(written(tmp_path, PLAIN))
    assert [(host.name, host.address, host.port, host.user) for host in hosts] == [
        ("berlin-7", "berlin-7", None, None), ("bonn-2", "bonn-2", None, None),
    ]  # fmt: skip


def test_an_ssh_config_gives_its_names_without_patterns(tmp_path: Path) -> None:
    text = "Host berlin-7 bonn-2\n  User probe\nHost *.example.net !x\n  Port 2222\nhost cologne\n"
    assert [host.name for host in read_inventory(written(tmp_path, text))] == ["berlin-7", "bonn-2", "cologne"]


@pytest.mark.parametrize(("text", "name"), [(INI, "hosts.ini"), (ANSIBLE_YAML, "hosts.yml")])
def test_ansibles_inventory(text: str, name: str, tmp_path: Path) -> None:
    hosts = {host.name: host for host in read_inventory(written(tmp_path, text, name))}
    assert set(hosts) == {"berlin-7", "bonn-2", "lone"}
    berlin = hosts["berlin-7"]
    assert (berlin.address, berlin.port, berlin.user) == ("192.0.2.7", 2222, "probe")
    assert (berlin.variables["uplink"], berlin.variables["gateway"]) == ("wlan 0", "10.0.0.1")
    assert (hosts["bonn-2"].address, hosts["bonn-2"].user) == ("bonn-2", "probe")
    assert hosts["lone"].user is None


def test_an_ssh_config_as_openssh_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh" / "config.d").mkdir(parents=True)
    written(tmp_path / ".ssh" / "config.d", 'Host = "cologne" *.de\nInclude config.d/*\n', "a")
    text = "Host=berlin-7  bonn-2 # the old site\n  HostName 192.0.2.7\nHostKeyAlgorithms x\nInclude config.d/*\n"
    hosts = read_inventory(written(tmp_path, text))
    assert [(host.name, host.address) for host in hosts] == [(name, name) for name in ("berlin-7", "bonn-2", "cologne")]


def test_ansible_inventory_merges_what_is_beside_a_file(tmp_path: Path, with_ansible: None) -> None:
    """A folder with both forms, a range of hosts, variables of a group in a file of their own, and a secret."""
    folder = tmp_path / "inventory"
    (folder / "group_vars").mkdir(parents=True)
    written(folder, INI.replace("bonn-2\n", "bonn-[1:2]\n", 1), "hosts")
    secret = "!vault |\n        $ANSIBLE_VAULT;1.1;AES256\n        3030"
    written(folder, f"lab:\n  hosts:\n    cologne:\n      password: {secret}\n", "lab.yml")
    written(folder / "group_vars", "gateway: 10.9.9.9\nansible_ssh_private_key_file: /k\n", "germany.yml")
    hosts = {host.name: host for host in read_inventory(folder)}
    assert sorted(hosts) == ["berlin-7", "bonn-1", "bonn-2", "cologne", "lone"]
    bonn = hosts["bonn-1"]
    assert (bonn.user, bonn.key_file, bonn.variables["gateway"]) == ("probe", "/k", "10.9.9.9")
    assert bonn.groups == ("agents", "germany", "all")
    assert [host.name for host in read_inventory(folder, "germany,!bonn-*")] == ["berlin-7"]
    assert [host.name for host in read_inventory(folder / "lab.yml")] == ["cologne"]


def test_without_ansible_the_groups_are_the_same(tmp_path: Path) -> None:
    for text, name in ((INI, "hosts.ini"), (ANSIBLE_YAML, "hosts.yml")):
        path = written(tmp_path, text, name)
        assert [host.name for host in read_inventory(path, "germany")] == ["berlin-7", "bonn-2"]


def test_nornirs_hosts_and_its_configuration(tmp_path: Path) -> None:
    written(tmp_path, "agents: {}\n", "groups.yaml")
    path = written(tmp_path, NORNIR, "hosts.yaml")
    config = written(
        tmp_path,
        "inventory:\n  plugin: SimpleInventory\n  options:\n"
        f"    host_file: {path}\n    group_file: {tmp_path}/groups.yaml\n",
        "config.yaml",
    )
    for source in (path, config):
        (host,) = read_inventory(source)
        assert (host.address, host.port, host.user, host.groups) == ("192.0.2.7", 2222, "probe", ("agents",))
        assert host.variables["uplink"] == "wlan0"


@pytest.mark.parametrize(
    ("limit", "names"),
    [
        ("b*", ["berlin-7", "bonn-2"]), ("agents", ["berlin-7", "bonn-2"]), ("lone,bonn-?", ["bonn-2", "lone"]),
        ("!b*", ["lone"]), ("agents, !bonn-2", ["berlin-7"]),
    ],
)  # fmt: skip
def test_a_limit_names_hosts_or_groups(limit: str, names: list[str], tmp_path: Path) -> None:
    assert [host.name for host in read_inventory(written(tmp_path, INI), limit)] == names


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ("-oProxyCommand=reboot\n", "hosts", "is not a name or an address of a host"),
        ("a ansible_host=-oProxyCommand=reboot\n", "hosts", "'-oProxyCommand=reboot' is not a name"),
        ("a ansible_user=-oX\n", "hosts", "'-oX' is not a name of a user"),
        ("a ansible_host='b; reboot'\n", "hosts", "'b; reboot' is not a name"),
        ("a ansible_port=0\n", "hosts", "'0' is not a port"),
        ("web[01:10].example.net\n[x]\n", "hosts", "is a range of hosts: install ansible-core"),
        ("\n", "hosts", "holds no host"),
        ("a: [1\n", "hosts.yaml", "not YAML"),
        ("- a\n", "hosts.yaml", "is not an inventory of Ansible or Nornir"),
        ("inventory: {plugin: none}\n", "hosts.yaml", "Nornir: PluginNotRegistered"),
    ],
)
def test_a_wrong_inventory_is_one_line(text: str, name: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        read_inventory(written(tmp_path, text, name))
    assert line in str(raised.value)
    assert len(raised.value.lines) == 1


def test_a_template_is_filled_with_the_variables_of_each_host(tmp_path: Path) -> None:
    template = written(
        tmp_path, SITE.replace('"by-hand"', "{{ inventory_hostname | toml }}").replace("10.10.50.1", "{{ gateway }}")
    )
    hosts = [FleetHost(name='b"7', address="b", variables={"gateway": "10.10.50.2"})]
    (intent,) = site_files(hosts, None, template)['b"7'].intents.values()
    assert intent.site.name == 'b"7'
    assert str(intent.gateway) == "10.10.50.2"


def test_every_mistake_of_every_site_file_is_reported(tmp_path: Path) -> None:
    written(tmp_path, SITE, "a.toml")
    written(tmp_path, SITE.replace('"nat"', '"nta"'), "b.toml")
    hosts = [FleetHost(name=name, address=name) for name in "abc"]
    with pytest.raises(UsageError) as raised:
        site_files(hosts, tmp_path, None)
    wrong, missing = raised.value.lines
    assert wrong.startswith(f"{tmp_path}/b.toml: agent.attach.mode: found 'nta'; allowed: nat, ")
    assert missing == f"{tmp_path}/c.toml: cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n{{ uplink }}", "{path}:2 for a: 'uplink' is undefined"),
        ("{{ uplink | toml }}", "{path}:1 for a: 'uplink' is undefined"),
        ("{{ a.b.c }}", "{path}:1 for a: 'dict object' has no attribute 'b'"),
        ("{{ a | toml }}", "{path}:1 for a: {{}} is not a text, a number, true, false, or a list of them"),
        ("{{ 1 / 0 }}", "{path}:1 for a: division by zero"),
        ("{{ ''.__class__.__mro__ }}", "{path}:1 for a: access to attribute '__class__' of 'str' object is unsafe."),
        ("{% include 'none' %}", "{path}:1 for a: 'none' not found in search path: '{folder}'"),
        ("\n{% if %}", "{path}:2: Expected an expression, got 'end of statement block'"),
        ("x = {{ inventory_hostname }}", "{path} for a: not TOML: Invalid value (at line 1, column 5)"),
    ],
)
def test_what_is_wrong_with_a_template_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    path = written(tmp_path, text, "site.toml.j2")
    with pytest.raises(UsageError) as raised:
        site_files([FleetHost(name="a", address="a", variables={"a": {}})], None, path)
    assert raised.value.lines == [line.format(path=path, folder=tmp_path)]


def test_a_template_with_a_mistake_for_each_host(tmp_path: Path) -> None:
    hosts = [FleetHost(name=name, address=name) for name in "abc"]
    with pytest.raises(UsageError) as raised:
        site_files(hosts, None, written(tmp_path, "{{ uplink }}", "t"))
    assert list(raised.value.lines) == [f"{tmp_path}/t:1 for {name}: 'uplink' is undefined" for name in "abc"]


def test_values_of_a_template_are_written_as_toml() -> None:
    values = ['a"b\n', 7, True, 0.5, ["x", 1]]
    assert [toml_value(value) for value in values] == ['"a\\"b\\n"', "7", "true", "0.5", '["x", 1]']


@pytest.mark.parametrize(("name", "folder"), [("a.b", "a.b"), ("../x", "%2E.%2Fx"), (".", "%2E"), ("a b", "a%20b")])
def test_a_name_is_one_folder(name: str, folder: str) -> None:
    assert folder_name(name) == folder


def test_a_folder_of_inventories_needs_ansible(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder: install ansible-core, whose ansible-inventory reads it"):
        read_inventory(tmp_path)


LINE = st.builds(
    "{}{}".format,
    st.sampled_from(["", "  ", "    ", "- "]),
    st.sampled_from([
        "all:", "hosts:", "hosts: [a, b]", "children:", "vars: 7", "vars: &a {x: *a}", "b7: {ansible_port: 99999}",
        "b7:", "when: 2026-13-01", "[agents]", "[agents:vars]", "[agents:children]", "b7 ansible_port=22 x='",
        "Host b7 -x 'y", "Include ~/none*", "inventory: {}", "ansible_host: -oProxyCommand=x",
        "b7 ansible_host=-oProxyCommand=x",
        "\\", '"',
    ]) | st.text(max_size=12),
)  # fmt: skip


@given(st.lists(LINE, max_size=8).map("\n".join), st.sampled_from(["hosts", "hosts.yml"]))
@example("all: &a\n  children: {b: *a}", "hosts.yml")
@example("[" * 5_000, "hosts.yml")
@example("all: {hosts: [a]}", "hosts.yml")
@example("all: {children: {x: {vars: 7}}}", "hosts.yml")
@example("b7 x='", "hosts")
@settings(max_examples=40)
def test_any_inventory_is_read_or_refused_in_one_line(text: str, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("viacheck.fleet.inventory._has_ansible", lambda: False)
        path = Path(folder, name)
        path.write_text(text)
        try:
            hosts = read_inventory(path)
        except UsageError as error:
            refused = error.lines
        else:
            refused = []
            assert not any(host.address.startswith("-") or (host.user or "").startswith("-") for host in hosts)
        assert all(line.startswith((str(path), "inventory: ")) for line in refused)
