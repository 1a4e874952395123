"""Numbers of as many bytes as they need, as CAR archives and dag-pb nodes have them. Pure."""


def varint_of(number: int) -> bytes:
    """Seven bits to a byte, the lowest first, with the eighth bit where more follow."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
