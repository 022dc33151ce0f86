"""Progress on the terminal."""

from typing import Any, ClassVar

from tqdm import tqdm


class Bar:
    """Progress on a tqdm bar on standard error: a new one where the counting starts again."""

    _open: ClassVar[list["Bar"]] = []

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""
        self._open.append(self)

    def update(self, done: float, total: float, unit: str, what: str) -> None:
        if self._bar is None or self._bar.unit != f" {unit}" or (self._what != what and done < self._bar.n):
            self.close()
            self._bar = tqdm(total=total, unit=f" {unit}", desc=what, leave=False)
        if self._what != what:
            self._what = what
            self._bar.set_description_str(what, refresh=False)
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
