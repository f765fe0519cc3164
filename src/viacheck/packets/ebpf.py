"""The part of bpf(2) that counts packets: an assembler for eBPF, and a map of counters that a program adds to.

A socket filter of classic BPF cannot see on which interface a forwarded packet arrived; one of eBPF can, and it counts
in the kernel, so that no packet is copied and this process is never woken. The program belongs to a socket of this
process and ends with it: nothing on the host is changed (bpf(2), linux/bpf.h, Documentation/bpf/standardization).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

_SYSCALL = {"x86_64": 321, "aarch64": 280}.get(platform.machine())
_MAP_CREATE, _MAP_LOOKUP, _PROG_LOAD = 0, 1, 5
_MAP_TYPE_ARRAY, _PROG_TYPE_SOCKET_FILTER = 2, 1
_SO_ATTACH_BPF = 50
_LICENSE = ctypes.create_string_buffer(b"Apache-2.0")
_ATTRIBUTES = 128
"""Octets of union bpf_attr that are given to the kernel."""
_LOOKUP_ELEMENT = 1
"""bpf_map_lookup_elem of linux/bpf.h."""
_INSTRUCTION = struct.Struct("=BBhi")
_MOST_IMMEDIATE = 1 << 31

_libc = ctypes.CDLL(None, use_errno=True)


class CountingNotPossible(Exception):
    """The kernel lets this process load no program; the message is one line and says why."""


@dataclass(frozen=True, slots=True)
class EbpfInstruction:
    """One instruction; a jump names the label that it continues at."""

    code: int
    target: int = 0
    """The destination register."""
    source: int = 0
    offset: int = 0
    immediate: int = 0
    label: str | None = None


def copy(target: int, source: int) -> EbpfInstruction:
    """Copy a register."""
    return EbpfInstruction(0xBF, target, source)


def set_number(target: int, value: int) -> EbpfInstruction:
    """Set a register to a number of 32 bits."""
    return EbpfInstruction(0xB4, target, immediate=value)


def load_field(target: int, context: int, offset: int) -> EbpfInstruction:
    """Load a field of 32 bits of struct __sk_buff."""
    return EbpfInstruction(0x61, target, context, offset)


def load_octets(size: int, offset: int) -> EbpfInstruction:
    """Load 1, 2 or 4 octets of the frame into register 0; the context is register 6. Beyond the end: refuse the frame.

    Registers 1 to 5 are lost.
    """
    return EbpfInstruction({4: 0x20, 2: 0x28, 1: 0x30}[size], immediate=offset)


def load_octets_after(size: int, register: int, offset: int) -> EbpfInstruction:
    """Load octets of the frame at an offset plus a register, as :func:`load_octets`."""
    return EbpfInstruction({4: 0x40, 2: 0x48, 1: 0x50}[size], source=register, immediate=offset)


def subtract_register(target: int, other: int) -> EbpfInstruction:
    """Subtract a register from a register of 32 bits."""
    return EbpfInstruction(0x1C, target, other)


def shift_up(target: int, bits: int) -> EbpfInstruction:
    """Shift a register of 32 bits to the left."""
    return EbpfInstruction(0x64, target, immediate=bits)


def mask_bits(target: int, bits: int) -> EbpfInstruction:
    """Keep bits of a register of 32 bits."""
    return EbpfInstruction(0x54, target, immediate=bits)


def continue_at(label: str) -> EbpfInstruction:
    """Continue at a label."""
    return EbpfInstruction(0x05, label=label)


def if_is(register: int, value: int, label: str) -> EbpfInstruction:
    """Continue at a label if a register's lower 32 bits equal a number."""
    return EbpfInstruction(0x16, register, immediate=value, label=label)


def if_is_not(register: int, value: int, label: str) -> EbpfInstruction:
    """Continue at a label if a register's lower 32 bits do not equal a number."""
    return EbpfInstruction(0x56, register, immediate=value, label=label)


def if_above(register: int, value: int, label: str) -> EbpfInstruction:
    """Continue at a label if a register's lower 32 bits, unsigned, are greater than a number."""
    return EbpfInstruction(0x26, register, immediate=value, label=label)


def if_below(register: int, value: int, label: str) -> EbpfInstruction:
    """Continue at a label if a register's lower 32 bits, unsigned, are less than a number."""
    return EbpfInstruction(0xA6, register, immediate=value, label=label)


def count(counter_map: int, key: int, amount: int) -> list[EbpfInstruction]:
    """Add a register, 6 to 9, to a counter of a map; registers 0 to 5 are lost."""
    return [
        # The key is at the top of the stack, which grows down from register 10.
        EbpfInstruction(0x62, 10, offset=-4, immediate=key),
        copy(2, 10),
        EbpfInstruction(0x07, 2, immediate=-4),
        # Two instructions for a number of 64 bits; BPF_PSEUDO_MAP_FD is 1.
        EbpfInstruction(0x18, 1, 1, immediate=counter_map),
        EbpfInstruction(0x00),
        EbpfInstruction(0x85, immediate=_LOOKUP_ELEMENT),
        # Without a counter, which cannot be, skip the addition: the verifier demands the test.
        EbpfInstruction(0x15, 0, offset=1),
        EbpfInstruction(0xDB, 0, amount),
    ]


def refuse_frame() -> list[EbpfInstruction]:
    """End the program; the socket receives nothing of the frame."""
    return [EbpfInstruction(0xB7, 0), EbpfInstruction(0x95)]


def assemble_ebpf(source: Sequence[EbpfInstruction | str]) -> bytes:
    """Assemble instructions, with labels as plain strings between them.

    Raises:
        KeyError: for a label that does not exist.
    """
    labels: Mapping[str, int] = _places(source)
    instructions = [line for line in source if isinstance(line, EbpfInstruction)]
    assembled = bytearray()
    for place, instruction in enumerate(instructions):
        if instruction.label is not None:
            instruction = replace(instruction, offset=labels[instruction.label] - place - 1)
        immediate = instruction.immediate & 0xFFFFFFFF
        signed = immediate - (1 << 32) if immediate >= _MOST_IMMEDIATE else immediate
        registers = instruction.target | instruction.source << 4
        assembled += _INSTRUCTION.pack(instruction.code, registers, instruction.offset, signed)
    return bytes(assembled)


def _places(source: Sequence[EbpfInstruction | str]) -> dict[str, int]:
    places, place = {}, 0
    for line in source:
        if isinstance(line, str):
            places[line] = place
        else:
            place += 1
    return places


class CounterMap:
    """Counters of 64 bits in the kernel, all zero at first."""

    def __init__(self, size: int) -> None:
        """Make the counters.

        Raises:
            CountingNotPossible: the kernel does not allow it.
        """
        self.fd = _bpf(_MAP_CREATE, struct.pack("=IIII", _MAP_TYPE_ARRAY, 4, 8, size))
        self._key, self._value = ctypes.c_uint32(0), ctypes.c_uint64(0)
        self._lookup = ctypes.create_string_buffer(
            struct.pack("=IIQQ", self.fd, 0, ctypes.addressof(self._key), ctypes.addressof(self._value)), _ATTRIBUTES
        )

    def read(self, key: int) -> int:
        """Return a counter.

        Raises:
            CountingNotPossible: the kernel does not allow it.
        """
        self._key.value = key
        _call(_MAP_LOOKUP, self._lookup)
        return self._value.value

    def close(self) -> None:
        """Close the map; it ends with the last program that uses it."""
        os.close(self.fd)


def attach_program(filtered: socket.socket, program: bytes) -> None:
    """Attach a program to a socket as its filter.

    Raises:
        CountingNotPossible: the kernel does not accept the program.
    """
    octets = ctypes.create_string_buffer(program, len(program))
    attributes = struct.pack(
        "=IIQQ", _PROG_TYPE_SOCKET_FILTER, len(program) // _INSTRUCTION.size,
        ctypes.addressof(octets), ctypes.addressof(_LICENSE),
    )  # fmt: skip
    loaded = _bpf(_PROG_LOAD, attributes)
    try:
        filtered.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, loaded)
    except OSError as error:
        raise CountingNotPossible(f"SO_ATTACH_BPF: {error.strerror}") from None
    finally:
        os.close(loaded)


def _bpf(command: int, attributes: bytes) -> int:
    return _call(command, ctypes.create_string_buffer(attributes, _ATTRIBUTES))


def _call(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    if _SYSCALL is None:
        raise CountingNotPossible(f"bpf(2) has no number here for {platform.machine()}")
    result: int = _libc.syscall(
        ctypes.c_long(_SYSCALL), ctypes.c_int(command), ctypes.byref(attributes), ctypes.c_uint(_ATTRIBUTES)
    )
    if result < 0:
        number = ctypes.get_errno()
        needed = "; it needs CAP_BPF outside of user namespaces" if number == errno.EPERM else ""
        raise CountingNotPossible(f"bpf(2): {os.strerror(number)}{needed}")
    return result
