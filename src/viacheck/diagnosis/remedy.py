"""A remedy: the steps that correct a cause, the steps that roll them back, and the shell text of both for a person.

A step is an argument list or a file edit. Names from outside (devices, containers, chains, tables, paths) are data in
it; this module alone turns steps into shell text, with every argument quoted.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from viacheck.model.diagnosis_record import OutputOf, RemedyStep
from viacheck.model.filter_chains import FilterChain, FilterRule
from viacheck.model.intent import Intent
from viacheck.model.route import Route, route_argv
from viacheck.persistence.file_edit import (
    CommentLine,
    FileEdit,
    PatchFile,
    RemoveFile,
    ReversibleEdit,
    UncommentLine,
    WriteFile,
)

_NFT_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_/.-]*")
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:,@=+ ")
"""Octets that mean themselves in the format of printf(1), between quotes of both kinds."""
_DELIMITERS = ("EOF", "END", *(f"{letter}_EOF" for letter in "ABCDFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"))
DOCKER = "docker"
IPTABLES, IPTABLES_LEGACY = "iptables", "iptables-legacy"
_MODPROBE = re.compile(r"-[A-Za-z0-9]*M.*", re.DOTALL)
"""A cluster of short options, the last of which is ``-M``."""
PATCH = ("patch", "-u", "-l", "-N", "-F0", "-r", "-", "--no-backup-if-mismatch")
"""GNU patch for a unified diff whose lines must all fit: it changes nothing the second time, and leaves no other file.

A terminal from which the diff is copied may turn tabs into spaces (``-l``).
"""


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """An argument that the shell fills in: the output of a command, which must be one word."""

    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"$({quoted(self.command)})"


Argument = str | CommandOutput
Command = tuple[Argument, ...]
Step = Command | FileEdit


@dataclass(frozen=True, slots=True)
class Remedy:
    """The steps that correct a cause, in order, and those that restore the state before them."""

    steps: tuple[Step, ...] = ()
    rollback: tuple[Step, ...] = ()

    @property
    def lines(self) -> list[str]:
        """The steps as shell text, one entry for each step."""
        return [shell_text(step) for step in self.steps]

    @property
    def rollback_lines(self) -> list[str]:
        """The rollback as shell text, one entry for each step."""
        return [shell_text(step) for step in self.rollback]

    def __bool__(self) -> bool:
        return bool(self.steps)


NO_REMEDY = Remedy()


def remedy_of(
    edits: Iterable[ReversibleEdit],
    then: Sequence[tuple[str, ...]] = (),
    after_rollback: Sequence[tuple[str, ...]] | None = None,
) -> Remedy:
    """Return the remedy of several edits: they are rolled back in reverse order.

    Args:
        edits: the edits, in order.
        then: commands after the edits that make a manager read its files.
        after_rollback: the same after the rollback; None for those of ``then``.
    """
    ordered = list(edits)
    last = then if after_rollback is None else after_rollback
    return Remedy(
        (*(edit.edit for edit in ordered), *then), (*(edit.rollback for edit in reversed(ordered)), *last)
    )  # fmt: skip


def command(*arguments: object) -> Command:
    """Return an argument list; numbers, addresses and networks become text, a :class:`CommandOutput` stays."""
    return tuple(argument if isinstance(argument, CommandOutput) else str(argument) for argument in arguments)


def container_pid(container: str) -> CommandOutput:
    """Return the process id of a container's first process, as the shell finds it when the remedy runs."""
    return CommandOutput(("docker", "inspect", "-f", "{{.State.Pid}}", container))


def with_programs(remedy: Remedy, programs: Mapping[str, str]) -> Remedy:
    """Return a remedy whose commands run other programs: podman takes the arguments of docker, word for word."""
    return Remedy(
        tuple(_with_programs(step, programs) for step in remedy.steps),
        tuple(_with_programs(step, programs) for step in remedy.rollback),
    )


def _with_programs(step: Step, programs: Mapping[str, str]) -> Step:
    if not isinstance(step, tuple):
        return step
    return tuple(
        CommandOutput((programs.get(part.command[0], part.command[0]), *part.command[1:]))
        if isinstance(part, CommandOutput)
        else programs.get(part, part)
        if number == 0
        else part
        for number, part in enumerate(step)
    )


def in_agent(intent: Intent, *arguments: object) -> Command:
    """Return a command that runs in the agent's network namespace."""
    if intent.agent.netns is not None:
        return command("nsenter", f"--net={intent.agent.netns}", *arguments)
    return command("nsenter", "--net", "--target", container_pid(str(intent.agent.container)), *arguments)


def set_agent_default(intent: Intent, gateway: object, interface: object, old: Route) -> Remedy:
    """Return the remedy that gives the agent another default route; ``old`` is the one that decides now."""
    default = ("default", "via", gateway, "dev", interface)
    # With another metric the new route stands beside the old one.
    back = ("ip", "route", "del", *default) if old.metric else route_argv("replace", old)
    return Remedy((in_agent(intent, "ip", "route", "replace", *default),), (in_agent(intent, *back),))


def agent_netns(intent: Intent) -> Argument:
    """Return the agent's network namespace as ``ip link add … netns`` takes it: a path or a process id."""
    return intent.agent.netns if intent.agent.netns is not None else container_pid(str(intent.agent.container))


def nft_names(chain: FilterChain) -> tuple[str, str, str] | None:
    """Return family, table and chain as nft takes them; None where nft's own grammar cannot express the names."""
    names = (chain.family, chain.table, chain.name)
    return names if all(_NFT_IDENTIFIER.fullmatch(name) for name in names) else None


def nft_rule_commands(chain: FilterChain, rule: FilterRule) -> Remedy:
    """Return the remedy that deletes a rule of nftables; its rollback adds the rule again, at the same place.

    It is empty where nft's own grammar cannot express the names of the table and the chain, and where the rule is known
    as JSON only, which nft takes in no rule.
    """
    names = nft_names(chain)
    if rule.handle is None or names is None or rule.text.startswith("["):
        return NO_REMEDY
    place = f"add rule {' '.join(names)}"
    following = [later.handle for later in _after(chain, rule) if later.handle not in (None, rule.handle)]
    if following:
        place = f"insert rule {' '.join(names)} position {following[0]}"
    # nft parses its arguments again, as one text: a rule with quotes in it must be one argument.
    restore = command("nft", f"{place} {rule.text}")
    return Remedy((command("nft", "delete", "rule", *names, "handle", rule.handle),), (restore,))


def _after(chain: FilterChain, rule: FilterRule) -> tuple[FilterRule, ...]:
    """Return the rules of a chain after a rule."""
    position = next((number for number, other in enumerate(chain.rules) if other is rule), len(chain.rules))
    return chain.rules[position + 1 :]


def iptables_of(chain: FilterChain) -> str:
    """Return the program that changes a chain of iptables: each of its two backends has chains of its own."""
    return IPTABLES_LEGACY if chain.backend == IPTABLES_LEGACY else IPTABLES


def iptables_rule_commands(chain: FilterChain, rule: FilterRule) -> Remedy:
    """Return the remedy that deletes a rule, given as iptables-save prints it; its rollback inserts it at its place.

    It is empty where the text is not ``-A CHAIN …``, does not split into arguments, or names a program to run.
    """
    try:
        arguments = shlex.split(rule.text)
    except ValueError:
        return NO_REMEDY
    if arguments[:1] != ["-A"] or any(_names_program(argument) for argument in arguments[1:]):
        return NO_REMEDY
    place = (arguments[1], str(len(chain.rules) - len(_after(chain, rule))))
    return Remedy(
        (command(iptables_of(chain), "-t", chain.table, "-D", *arguments[1:]),),
        (command(iptables_of(chain), "-t", chain.table, "-I", *place, *arguments[2:]),),
    )


def rule_removal(chain: FilterChain, rule: FilterRule) -> Remedy:
    """Return the remedy that deletes a rule of the packet filter, by the tool that wrote it."""
    return nft_rule_commands(chain, rule) if chain.backend == "nft" else iptables_rule_commands(chain, rule)


def _names_program(argument: str) -> bool:
    """Return whether iptables may take an argument as ``-M`` or ``--modprobe``, which name a program that it runs."""
    option = argument.partition("=")[0]
    return _MODPROBE.fullmatch(argument) is not None or (len(option) > 3 and "--modprobe".startswith(option))


# --- shell text -------------------------------------------------------------------------------------------------------


def shell_text(step: Step) -> str:
    """Return a step as a person types it into a POSIX shell."""
    if isinstance(step, tuple):
        return " ".join(str(part) if isinstance(part, CommandOutput) else _quoted(part) for part in step)
    arguments, text = _edit_command(step)
    if text is None:
        return quoted(arguments)
    return here_document(arguments, text) if _prints(text) else _by_printf(arguments, text)


def quoted(arguments: Iterable[str]) -> str:
    """Return arguments for a POSIX shell, each quoted."""
    return " ".join(map(_quoted, arguments))


def _quoted(argument: str) -> str:
    """Return an argument for a POSIX shell, in characters that print.

    A report escapes the others (a control character, a mark that turns the direction of writing), and a shell at a
    terminal completes a word at a tab. So printf(1) makes an argument that has any, of octal numbers.
    """
    if argument.replace("\n", "").isprintable() or argument.endswith("\n"):
        return shlex.quote(argument)
    try:
        octets = argument.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return shlex.quote(argument)
    plain = (chr(octet) if octet in _PLAIN else f"\\{octet:03o}" for octet in octets)
    return f"\"$(printf '{''.join(plain)}')\""


def execution_of(step: Step) -> RemedyStep:
    """Return a step as a program runs it, without a shell."""
    if isinstance(step, tuple):
        return RemedyStep(
            argv=[OutputOf(command=list(part.command)) if isinstance(part, CommandOutput) else part for part in step]
        )
    arguments, text = _edit_command(step)
    return RemedyStep(argv=list(arguments), stdin=text if text is None else _whole_lines(text))


def _edit_command(edit: FileEdit) -> tuple[tuple[str, ...], str | None]:
    """Return the command of an edit, and the text that the command reads from standard input."""
    path = edit.path
    match edit:
        case WriteFile():
            return ("install", "-D", "-m", edit.mode, "/dev/stdin", path), edit.text
        case RemoveFile():
            return ("rm", path), None
        case PatchFile():
            return (*PATCH, path), edit.diff
        case CommentLine(following=""):
            return ("sed", "-i", f"{edit.line}s/^/# /", path), None
        case CommentLine():
            comment = f"{edit.line}s/^/# /"
            return ("sed", "-i", "-e", f"{edit.line}r /dev/stdin", "-e", comment, path), edit.following
        case UncommentLine(following=0):
            return ("sed", "-i", f"{edit.line}s/^# //", path), None
        case UncommentLine():
            delete = f"{_lines(edit.line + 1, edit.line + edit.following)}d"
            return ("sed", "-i", "-e", delete, "-e", f"{edit.line}s/^# //", path), None


def _lines(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first},{last}"


def here_document(arguments: Sequence[str], text: str) -> str:
    """Return a command that reads a text from a here-document, whose delimiter is not a line of the text."""
    lines = text.split("\n")
    delimiter = next((name for name in _DELIMITERS if not any(_spoils(line, name) for line in lines)), "EOF")
    while delimiter in lines:
        delimiter += "_"
    return f"{quoted(arguments)} <<'{delimiter}'\n{_whole_lines(text)}{delimiter}"


def _prints(text: str) -> bool:
    """Whether a report shows a text as it is; patch(1) takes spaces for tabs."""
    return text.replace("\n", "").replace("\t", "").isprintable()


def _by_printf(arguments: Sequence[str], text: str) -> str:
    """Return a command that reads a text from printf(1), which makes the characters that do not print.

    A line that a diff shows may end with a carriage return, or hold a mark that turns the direction of writing.
    """
    escaped = "".join(_in_format(letter) for letter in _whole_lines(text))
    return f"printf -- '{escaped}' | {quoted(arguments)}"


def _in_format(letter: str) -> str:
    """Return a character in the format of printf(1), between single quotes."""
    if letter == "\n" or (letter.isprintable() and letter not in "'\\%"):
        return letter
    return "".join(f"\\{octet:03o}" for octet in letter.encode(errors="surrogatepass"))


def _whole_lines(text: str) -> str:
    """Return a text whose last line has a line end, as a here-document gives it to a command."""
    return text if text.endswith("\n") or not text else f"{text}\n"


def _spoils(line: str, delimiter: str) -> bool:
    """Whether a here-document with this delimiter cannot hold a line.

    dash 0.5.12 drops a byte of a line that shares its first character with the delimiter and is not ASCII.
    """
    return line == delimiter or (line[:1] == delimiter[0] and not line.isascii())


def run_unless(condition: Command, then: Command) -> str:
    """Return one line of shell that runs a command only while a condition fails, for a file that a shell reads."""
    return f"{shell_text(condition)} >/dev/null 2>&1 || {shell_text(then)}"


def only_if(condition: Command, line: str) -> str:
    """Return one line of shell that ends in peace unless a condition holds, for a line with a shell of its own."""
    return f"{shell_text(condition)} || exit 0; {line}"


def systemd_exec_shell(line: str) -> str:
    """Return a line of shell as the value of ``ExecStart=`` (systemd.service(5): quotes, specifiers, variables)."""
    quoted = line.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'/bin/sh -c "{quoted}"'
