"""Scores of a kept variant of the demo model on the Benchmarks page."""

import pytest

from replaceme_core.plans.plan import EvaluationSection
from tests.support.app_session import finish, needs_demo, open_page, run, text_of
from ui.benchmarks import jobs as benchmark_runs
from ui.session import variants
from ui.session.state import Studio

pytestmark = pytest.mark.usefixtures("at_the_root")


@needs_demo
def test_benchmarks_score_all_columns_with_standard_errors(kept: Studio) -> None:
    section = EvaluationSection(tasks="demo", limit=4)
    newest = list(kept.variants)[-1:]
    finish(benchmark_runs.run(kept, variants.systems(kept, newest), section))
    app = open_page("pages/5_Benchmarks.py", kept)
    app.number_input[0].set_value(4)
    run(app)
    assert "Which answers changed?" in text_of(app)
