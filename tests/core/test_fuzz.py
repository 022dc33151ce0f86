"""What people may hand in, at random: every reader answers with data or with an error of ours, and never hangs."""

import json
import string
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replaceme_core.calibration.calibration import read_upload
from replaceme_core.cli.reference import _read
from replaceme_core.cli.reference_config import ReferenceConfig
from replaceme_core.errors import InputError, PlanError, TextError
from replaceme_core.export import runs
from replaceme_core.plans.plan import PruningPlan
from replaceme_core.plans.section import read_yaml
from replaceme_core.surgery import transform_file

FEW = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.sampled_from(["demo", "all", "refit", "low_rank"])
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def keys_of(section: type) -> st.SearchStrategy:
    """Mappings that are half right: names of the section and others, with any values."""
    return st.dictionaries(st.sampled_from(list(section.model_fields)) | st.text(string.ascii_lowercase, max_size=6), ANYTHING, max_size=6)


SECTIONS = {name: field.annotation for name, field in PruningPlan.model_fields.items()}
PLANS = st.fixed_dictionaries(
    {"model": st.just({"path": "demo"}) | ANYTHING},
    optional={
        name: ANYTHING | keys_of(next(option for option in getattr(kind, "__args__", (kind,)) if hasattr(option, "model_fields")))
        for name, kind in SECTIONS.items()
        if name != "model"
    },
)


@FEW
@given(ANYTHING | PLANS)
def test_any_data_are_a_plan_or_a_list_of_problems(data):
    with suppress(PlanError):
        plan = PruningPlan.parse(data)
        assert PruningPlan.parse(plan.to_data()) == plan


@FEW
@given(keys_of(ReferenceConfig), st.booleans())
def test_any_data_are_a_configuration_of_the_public_library_or_a_list_of_problems(data, named):
    with suppress(PlanError):
        ReferenceConfig.parse({"model_path": "demo"} | data if named else data).plan()


@FEW
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | ANYTHING.map(lambda data: yaml.dump(data).encode()))
def test_any_file_is_a_plan_or_an_error_that_names_it(tmp_path, data):
    (tmp_path / "plan.yaml").write_bytes(data)
    with pytest.raises(PlanError, match=r"plan\.yaml"):
        PruningPlan.read(tmp_path / "plan.yaml")


@pytest.mark.parametrize(
    "text", ["[" * 600, "a: " + "1" * 5000, "2024-99-99", "? [a, b]\n: c", "a: &a [*a]", "0x", "!!binary x", "!!int ''"]
)
def test_yaml_that_trips_parsers_is_an_error_of_ours(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(PlanError):
        PruningPlan.parse(read_yaml(tmp_path / "plan.yaml", "plan"))


ROWS = st.lists(st.dictionaries(st.sampled_from(["text", "messages", "other"]), ANYTHING, max_size=2), max_size=4)
UPLOADS = (
    st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | ROWS.map(lambda rows: "\n".join(json.dumps(row, default=str) for row in rows).encode())
    | st.binary(max_size=60).map(lambda data: b"PAR1" + data + b"PAR1")
)


@FEW
@given(st.sampled_from(["txt", "jsonl", "csv", "parquet", "exe"]), UPLOADS)
def test_any_upload_is_text_or_an_error_that_names_it(ending, data):
    name, said, texts = f"upload.{ending}", "", []
    try:
        texts = read_upload(name, data)
    except TextError as error:
        said = str(error)
    assert name in said or (texts and all(isinstance(text, str) and text.strip() for text in texts))


@FEW
@given(st.binary(max_size=100) | ANYTHING.map(lambda data: json.dumps(data, default=str).encode()))
def test_any_rest_of_a_run_is_listed_or_left_out_and_any_transform_is_read_or_refused(tmp_path, data):
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    for name in ("report.json", "comparison.json", "scores.json", "plan.yaml", "transform.safetensors", "distances.json"):
        (folder / name).write_bytes(data)
    assert runs.list_runs(tmp_path) == []
    assert runs.broken(tmp_path) == [], "names alone do not make it ours"
    with pytest.raises(InputError):
        transform_file.read(folder)
    with pytest.raises(PlanError):
        _read(Path(folder / "distances.json"), 3)
