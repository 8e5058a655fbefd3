"""A bounded, strict reader over bytes that names the structure and offset of every fault."""

from app.errors import WireError


class Cursor:
    """Reads a byte string from start to end and never past it.

    Args:
        structure: the name that errors carry.
        raw: the whole structure.
        base: offset of `raw` in the enclosing blob, for error messages.
    """

    def __init__(self, structure: str, raw: bytes, *, base: int = 0) -> None:
        self.structure = structure
        self._raw = bytes(raw)
        self._base = base
        self._position = 0

    @property
    def offset(self) -> int:
        """Offset of the next byte, counted in the enclosing blob."""
        return self._base + self._position

    @property
    def remaining(self) -> int:
        """Number of bytes not yet read."""
        return len(self._raw) - self._position

    def fail(self, reason: str, *, back: int = 0) -> WireError:
        """The error for a fault `back` bytes before the next byte, to be raised by the caller."""
        return WireError(self.structure, self.offset - back, reason)

    def take(self, size: int, what: str) -> bytes:
        """The next `size` bytes, which hold `what`.

        Raises:
            WireError: fewer bytes are left.
        """
        if size > self.remaining:
            raise self.fail(f"{what} needs {size} bytes, {self.remaining} left")
        start = self._position
        self._position += size
        return self._raw[start : self._position]

    def integer(self, size: int, what: str, *, big_endian: bool = False) -> int:
        """The next `size` bytes as an unsigned integer; little-endian unless told (SNP yes, TPM no)."""
        return int.from_bytes(self.take(size, what), "big" if big_endian else "little")

    def zeros(self, size: int, what: str) -> None:
        """Demand that the next `size` bytes are zero.

        Raises:
            WireError: at the first byte that is not.
        """
        start = self.offset
        for index, byte in enumerate(self.take(size, what)):
            if byte:
                raise WireError(self.structure, start + index, f"{what} must be zero")

    def end(self) -> None:
        """Demand that nothing is left.

        Raises:
            WireError: bytes follow the structure.
        """
        if self.remaining:
            raise self.fail(f"{self.remaining} bytes follow the end of the structure")
