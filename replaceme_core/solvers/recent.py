"""What was worked out from an object lately, for as long as that object lives.

    @recent(most=4)
    def spectrum_of(moments: SpanMoments) -> Spectrum: ...

A cache of a module outlives the models that passed through it, and at width 4,096 one eigendecomposition is 268 MB. So it knows the
first argument of a call by a weak reference: when the moments of a model go, what was made of them goes too. A result may hold the
tensors of that object, and never the object itself, which would keep itself alive.
"""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Concatenate, Generic, ParamSpec, TypeVar

Owner = TypeVar("Owner")
Rest = ParamSpec("Rest")
Result = TypeVar("Result")


def recent(most: int) -> Callable[[Callable[Concatenate[Owner, Rest], Result]], "Recent[Owner, Rest, Result]"]:
    """Keeps the last `most` results of a function, each for as long as the first argument lives. The others are hashable."""
    return lambda function: Recent(function, most)


class Recent(Generic[Owner, Rest, Result]):
    """The function, and its last results."""

    def __init__(self, function: Callable[Concatenate[Owner, Rest], Result], most: int) -> None:
        self._function, self._most, self.__doc__ = function, most, function.__doc__
        self._found: OrderedDict[tuple[int, Hashable], tuple[weakref.ref[Owner], Result]] = OrderedDict()
        self._lock = threading.RLock()

    def __call__(self, owner: Owner, *rest: Rest.args, **named: Rest.kwargs) -> Result:
        key = (id(owner), (rest, *sorted(named.items())))
        with self._lock:
            known = self._found.get(key)
            if known is not None and known[0]() is owner:
                self._found.move_to_end(key)
                return known[1]
        result = self._function(owner, *rest, **named)
        with self._lock:
            self._found[key] = (weakref.ref(owner, lambda _gone: self._forget(key)), result)
            while len(self._found) > self._most:
                self._found.popitem(last=False)
        return result

    def __len__(self) -> int:
        return len(self._found)

    def cache_clear(self) -> None:
        """Forgets all of them."""
        with self._lock:
            self._found.clear()

    def _forget(self, key: tuple[int, Hashable]) -> None:
        with self._lock:
            known = self._found.get(key)
            if known is not None and known[0]() is None:  # not that of another object which has the number by now
                del self._found[key]
