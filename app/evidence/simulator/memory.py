"""Guest-physical memory, as far as a guest shares it with its SVSM."""

PAGE_SIZE = 0x1000
_FIRST_ADDRESS = 0x100000


class PageFaultError(Exception):
    """An access to an address that no page backs."""


class GuestMemory:
    """Pages of 4096 bytes, handed out in ascending, physically contiguous runs."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._next = _FIRST_ADDRESS

    def allocate(self, size: int) -> int:
        """The address of a zeroed, page-aligned buffer of at least `size` bytes.

        An unbacked page follows each buffer, so that running over its end is noticed.
        """
        address = self._next
        count = -(-size // PAGE_SIZE)
        for number in range(address // PAGE_SIZE, address // PAGE_SIZE + count):
            self._pages[number] = bytearray(PAGE_SIZE)
        self._next += (count + 1) * PAGE_SIZE
        return address

    def read(self, address: int, size: int) -> bytes:
        """The bytes at `address`.

        Raises:
            PageFaultError: a page of the range is not backed.
        """
        return b"".join(bytes(page[start:end]) for page, start, end in self._spans(address, size))

    def write(self, address: int, data: bytes) -> None:
        """Store the bytes at `address`; nothing is stored where a page is missing.

        Raises:
            PageFaultError: a page of the range is not backed.
        """
        done = 0
        for page, start, end in self._spans(address, len(data)):
            page[start:end] = data[done : done + end - start]
            done += end - start

    def _spans(self, address: int, size: int) -> list[tuple[bytearray, int, int]]:
        """The pieces of a range, page by page: the page, and where the piece starts and ends in it."""
        spans = []
        end = address + size
        while address < end:
            number, start = divmod(address, PAGE_SIZE)
            page = self._pages.get(number)
            if page is None:
                raise PageFaultError(f"no page at 0x{address:x}")
            stop = min(PAGE_SIZE, start + end - address)
            spans.append((page, start, stop))
            address += stop - start
        return spans
