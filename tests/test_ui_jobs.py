"""Jobs wait for the libraries: two threads that import transformers at once can each see the other's half."""

import threading
import time

from ui import work
from ui.state import Studio


def test_a_job_starts_only_when_the_libraries_are_imported(monkeypatch):
    events = []
    slow = threading.Thread(target=lambda: (time.sleep(0.4), events.append("imported")))
    slow.start()
    monkeypatch.setattr(work, "warm", lambda: slow)
    job = work._submit(Studio(), "early", lambda _job: events.append("worked"))
    assert job.finished.wait(10)
    assert events == ["imported", "worked"]
    assert job.state == "done"
