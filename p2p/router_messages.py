"""What a home router is asked about ports, and answers: PCP (RFC 6887), NAT-PMP (RFC 6886). Pure.

Each answer is read against what was asked: whatever else comes to the socket is Malformed, and a
router that says no is Refused in its own words.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from wire.errors import Malformed, Refused
from wire.kinds import RefusalCode

ROUTER_PORT = 5351
ANSWER_BYTES_MAX = 1100
NONCE_BYTES = 12
_TCP = 6
_PCP, _PMP = 2, 0
# No address in particular, as IPv6 has an address of IPv4.
_ANY = bytes(10) + b"\xff\xff" + bytes(4)
_ANSWER = 0x80
_MAP, _PMP_ADDRESS, _PMP_TCP = 1, 0, 2
_PCP_HEAD = struct.Struct(">BBHI16s")
_PCP_ANSWER = struct.Struct(">BBBBII12s")
_PCP_MAP = struct.Struct(">12sB3sHH16s")
_PMP_REQUEST = struct.Struct(">BBHHHI")
_PMP_MAPPED = struct.Struct(">BBHIHHI")
_PMP_TOLD = struct.Struct(">BBHI4s")
# Result codes that say why not; both protocols number them alike where they share one.
_WORDS = {
    1: "it speaks another version",
    2: "its owner does not allow it",
    3: "it has no address outside yet",
    4: "it has no room for another port",
    5: "it does not know how",
    8: "it has no room for another port",
    10: "it has given this machine all the ports that it may have",
    11: "it gives no port for so long",
    12: "it sees this machine at another address: another router is between",
    13: "it has too many other machines",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PortAnswer:
    """A port that a router passes on, for so long; `host` is its address outside, "" if unsaid."""

    external_port: int
    lifetime_s: int
    host: str = ""


def pcp_request(host: str, port: int, nonce: bytes, lifetime_s: int, wanted: int) -> bytes:
    """Ask to pass TCP on to `port` at `host`; with no lifetime, not to do so any more."""
    own = _mapped(host)
    head = _PCP_HEAD.pack(_PCP, _MAP, 0, lifetime_s, own)
    return head + _PCP_MAP.pack(nonce, _TCP, bytes(3), port, wanted, _ANY)


def read_pcp(data: bytes, port: int, nonce: bytes) -> PortAnswer:
    """What a router says by PCP. Malformed if it is no answer to this, Refused if it says no."""
    if data[:1] == bytes((_PMP,)) and len(data) >= 4:
        # Who speaks NAT-PMP alone answers in that, with a result that says so.
        raise _refused(1)
    if len(data) < _PCP_ANSWER.size:
        raise Malformed("an answer of the router's is too short")
    version, operation, _, result, lifetime_s, _, _ = _PCP_ANSWER.unpack_from(data)
    if version != _PCP or operation != _ANSWER | _MAP:
        raise Malformed("an answer of the router's is to something else")
    if result:
        raise _refused(result)
    if len(data) < _PCP_ANSWER.size + _PCP_MAP.size:
        raise Malformed("an answer of the router's is too short")
    said_nonce, protocol, _, inner, outer, outside = _PCP_MAP.unpack_from(data, _PCP_ANSWER.size)
    if (said_nonce, protocol, inner) != (nonce, _TCP, port):
        raise Malformed("an answer of the router's is about another port")
    ipv4 = IPv6Address(outside).ipv4_mapped
    host = str(ipv4 or IPv6Address(outside))
    return _answer(outer, lifetime_s, "" if ip_address(host).is_unspecified else host)


def pmp_request(port: int, lifetime_s: int, wanted: int) -> bytes:
    """The same by NAT-PMP."""
    return _PMP_REQUEST.pack(_PMP, _PMP_TCP, 0, port, wanted if lifetime_s else 0, lifetime_s)


def read_pmp(data: bytes, port: int) -> PortAnswer:
    """What a router says by NAT-PMP; the same errors as `read_pcp`."""
    _check_pmp(data, _PMP_TCP, _PMP_MAPPED.size)
    _, _, _, _, inner, outer, lifetime_s = _PMP_MAPPED.unpack_from(data)
    if inner != port:
        raise Malformed("an answer of the router's is about another port")
    return _answer(outer, lifetime_s, "")


PMP_ADDRESS_REQUEST = bytes((_PMP, _PMP_ADDRESS))


def read_pmp_address(data: bytes) -> str:
    """The router's address outside, as it says by NAT-PMP; the same errors as `read_pcp`."""
    _check_pmp(data, _PMP_ADDRESS, _PMP_TOLD.size)
    return str(ip_address(_PMP_TOLD.unpack_from(data)[4]))


def _check_pmp(data: bytes, operation: int, size_bytes: int) -> None:
    if len(data) < 4 or data[0] != _PMP or data[1] != _ANSWER | operation:
        raise Malformed("an answer of the router's is to something else")
    if result := int.from_bytes(data[2:4], "big"):
        raise _refused(result)
    if len(data) < size_bytes:
        raise Malformed("an answer of the router's is too short")


def _answer(port: int, lifetime_s: int, host: str) -> PortAnswer:
    if not port:
        raise Malformed("the router names no port")
    if not lifetime_s:
        # So it says that a port is passed on no more; another protocol may be answered better.
        raise Refused(
            "the router passes no port on: it gives one for no time",
            code=RefusalCode.NOT_WILLING,
        )
    return PortAnswer(external_port=port, lifetime_s=lifetime_s, host=host)


def _refused(result: int) -> Refused:
    why = _WORDS.get(result, f"it says error {result}")
    return Refused(f"the router passes no port on: {why}", code=RefusalCode.NOT_WILLING)


def _mapped(host: str) -> bytes:
    address = ip_address(host)
    return (address if address.version == 6 else IPv6Address(f"::ffff:{address}")).packed
