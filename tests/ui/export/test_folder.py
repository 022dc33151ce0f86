"""The folder that the Export page writes of a kept variant of the demo model."""

from pathlib import Path

import pytest

from replaceme_core.plans.plan import ExportSection
from tests.support.app_session import click, finish, needs_demo, open_page, run, text_of
from ui.export import jobs as export_work
from ui.session.jobs import runner
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")


@needs_demo
def test_export_shows_proofs_and_the_recipe_and_writes_the_folder(kept: Studio, tmp_path: Path) -> None:
    app = open_page("pages/6_Export.py", kept)
    app.text_input[0].set_value(str(tmp_path / "model"))
    run(app)
    click(app, "Export")
    finish(runner().latest(kept.owner))
    assert "Exported to" in text_of(run(app))
    assert (tmp_path / "model" / "config.json").is_file()
    assert "weighted_least_squares" in app.code[0].value


@needs_demo
def test_a_folder_that_exists_is_named_and_nothing_is_lost(kept: Studio, tmp_path: Path) -> None:
    variant = kept.variants["first"]
    job = export_work.export_variant(kept, variant, str(tmp_path), ExportSection())
    job.finished.wait(60)
    app = open_page("pages/6_Export.py", kept)
    assert "exists already" in text_of(app)
    assert "first" in kept.variants
    click(app, "Close")
    assert "exists already" not in text_of(app)
