"""Progress on the terminal."""

from typing import Any, ClassVar

from tqdm import tqdm


class Bar:
    """Progress on a tqdm bar, one per phase of the work, on standard error."""

    _open: ClassVar[list["Bar"]] = []

    def __init__(self) -> None:
        self._bar: Any = None
        self._open.append(self)

    def update(self, done: float, total: float, unit: str, what: str) -> None:
        if self._bar is None or self._bar.desc != what:
            self.close()
            self._bar = tqdm(total=total, unit=f" {unit}", desc=what, leave=False)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    @classmethod
    def close_all(cls) -> None:
        """Before anything else is written: an error must not share a line with a bar."""
        while cls._open:
            cls._open.pop().close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
