"""What a cold page imports while a person waits for it: not torch, and on the Overview neither the chart library nor the plans."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
COLD = """
import sys, threading
from streamlit.testing.v1 import AppTest
import ui.session.warm
over = threading.Thread(target=lambda: None)
over.start(); over.join()
ui.session.warm.warm = lambda: over  # the thread that imports in the background does not run here
app = AppTest.from_file(sys.argv[1], default_timeout=60).run()
assert not app.exception, app.exception
assert not app.error, app.error
assert len(app.markdown) > 2, "the page is empty"
print("imported:", " ".join(name for name in ("torch", "transformers", "altair", "pandas", "pydantic", "scipy", "lm_eval", "matplotlib") if name in sys.modules))
"""


@pytest.mark.parametrize(("path", "never"), [("app.py", {"torch", "altair", "pandas", "pydantic"}), ("pages/7_Lesson.py", {"torch"})])
def test_a_cold_page_is_drawn_without_the_heavy_libraries(path: str, never: set[str]) -> None:
    done = subprocess.run([sys.executable, "-c", COLD, path], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("imported:"))
    assert not (never | {"transformers", "scipy", "lm_eval", "matplotlib"}) & set(line.split()[1:]), line
