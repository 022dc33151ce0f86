"""The rules of the design that can be read off the source: who imports whom, how long a file may be, what the map names."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from replaceme_core.models.family_table import markdown_table

ROOT = Path(__file__).resolve().parent.parent
CORE = sorted((ROOT / "replaceme_core").rglob("*.py"))
PAGES = sorted((ROOT / "pages").glob("*.py"))
UI = sorted((ROOT / "ui").rglob("*.py"))
DEMO = sorted((ROOT / "demo").glob("*.py"))
APP = [ROOT / "app.py"]
LONGEST = 250
LOWEST = (
    "artifacts", "distribution", "evaluation_section", "handle", "healing_report", "healing_section", "span", "spans", "moments", "progress", "errors", "section", "plan",
    "family", "family_table", "families", "capture", "modality", "image_files",
)  # fmt: skip
STAGES = ("loading", "calibration", "measure", "spans", "solvers", "surgery", "compare", "evaluate", "export")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """(dotted module, whether at the top level) of every import; `from a import b` counts as a and as a.b."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) for n in ast.walk(f)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}, line {node.lineno}: imports are absolute"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found += [(module, id(node) not in inner) for module in names]
    return found


def roots(path: Path) -> set[str]:
    return {module.split(".")[0] for module, _ in imports(path)}


def importers(package: str, paths: list[Path] = CORE) -> set[str]:
    return {name(path) for path in paths if package in roots(path)}


def test_the_files_are_found():
    assert len(CORE) > 20
    assert len(PAGES) == 9
    assert UI
    assert DEMO


@pytest.mark.parametrize("package", ["streamlit", "altair", "ui", "pages", "app", "demo", "tests", "pytest"])
def test_the_library_never_imports(package):
    assert importers(package) == set()


@pytest.mark.parametrize("path", [*PAGES, *APP], ids=name)
def test_a_page_imports_only_streamlit_ui_and_the_standard_library(path):
    assert roots(path) - set(sys.stdlib_module_names) <= {"streamlit", "ui"}


@pytest.mark.parametrize("path", UI, ids=name)
def test_the_ui_imports_no_page_and_no_heavy_library_at_its_top_level(path):
    assert not {"pages", "app", "lm_eval", "datasets"} & roots(path)
    assert not [module for module, top in imports(path) if top and module.split(".")[0] == "transformers"]


@pytest.mark.parametrize("module", ["artifacts", "distances", "spans", "moments", "solvers", "progress", "errors", "plan"])
def test_the_numeric_core_never_imports_transformers(module):
    paths = [path for path in CORE if path.stem == module or module in path.parts]
    if module == "distances" and not paths:
        return  # the distances live in moments.py
    assert paths
    assert importers("transformers", paths) == set()


@pytest.mark.parametrize("module", LOWEST)
def test_the_lowest_layer_imports_only_itself(module):
    below = {f"replaceme_core.{low}" for low in LOWEST}
    found = {".".join(m.split(".")[:2]) for m, _ in imports(ROOT / "replaceme_core" / f"{module}.py") if m.startswith("replaceme_core.")}
    assert found <= below


def test_lm_eval_is_imported_by_the_evaluation_alone_and_late():
    """By lm_eval_model at its top, which is imported by the harness alone, inside functions, as everything else of lm-eval is."""
    late = {"replaceme_core/evaluation/harness.py", "replaceme_core/evaluation/task_index.py"}
    assert importers("lm_eval", [*CORE, *UI, *PAGES, *APP]) == late | {"replaceme_core/evaluation/lm_eval_model.py"}
    for path in late:
        assert not [m for m, top in imports(ROOT / path) if top and m.startswith(("lm_eval", "replaceme_core.evaluation.lm_eval_model"))]
    users = {name(path) for path in [*CORE, *UI] if any(m.startswith("replaceme_core.evaluation.lm_eval_model") for m, _ in imports(path))}
    assert users == {"replaceme_core/evaluation/harness.py"}


def test_datasets_is_imported_by_the_hub_reader_alone_and_inside_functions():
    assert importers("datasets", [*CORE, *UI, *PAGES, *APP]) == {"replaceme_core/calibration/hub_text.py"}
    assert not [m for m, top in imports(ROOT / "replaceme_core/calibration/hub_text.py") if top and m.split(".")[0] == "datasets"]


def test_matplotlib_is_imported_by_the_pictures_of_the_card_alone():
    assert importers("matplotlib", [*CORE, *UI, *PAGES, *APP]) == {"replaceme_core/export/card_plots.py"}


def test_transformers_and_other_slow_imports_wait_inside_functions():
    """Importing the library stays fast: no module loads transformers, lm_eval, datasets, scipy or pyarrow at its top level."""
    heavy = {"transformers", "lm_eval", "datasets", "scipy", "pyarrow", "peft", "bitsandbytes", "matplotlib"}
    found = {(name(path), m) for path in CORE for m, top in imports(path) if top and m.split(".")[0] in heavy}
    assert {path for path, _ in found} <= {"replaceme_core/evaluation/lm_eval_model.py"}


def test_only_the_command_line_the_sweep_and_the_app_call_the_pipeline():
    users = {name(path) for path in CORE if "replaceme_core.pipeline" in {m for m, _ in imports(path)}}
    assert users
    assert {user for user in users if not user.startswith("replaceme_core/cli")} <= {
        "replaceme_core/studies/sweep/run.py",
        "replaceme_core/studies/sweep/bench.py",
    }, "a sweep is many runs"


@pytest.mark.parametrize("path", CORE, ids=name)
def test_only_the_entry_point_imports_the_command_line(path):
    if path.name not in ("__main__.py", "bar.py") and not path.stem.startswith("cli"):
        assert not [m for m, _ in imports(path) if m.startswith("replaceme_core.cli.main") or m.split(".")[0] in ("click", "tqdm")]


def test_hooks_are_registered_in_capture_alone():
    pattern = re.compile(r"register_(full_)?(forward|backward|module)\w*hook")
    assert {name(path) for path in [*CORE, *UI, *PAGES] if pattern.search(path.read_text(encoding="utf-8"))} == {
        "replaceme_core/models/capture.py"
    }


def test_remote_code_is_never_trusted():
    """Every from_pretrained and from_config in the library says trust_remote_code=False, in words or through its options."""
    calls = []
    for path in CORE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("from_pretrained", "from_config"):
                said = {k.arg: k.value for k in node.keywords}
                value = said.get("trust_remote_code")
                calls.append((name(path), node.lineno, (isinstance(value, ast.Constant) and value.value is False) or None in said))
    assert len(calls) >= 4
    assert [call for call in calls if not call[2]] == []
    assert not [name(path) for path in [*CORE, *UI] if "trust_remote_code=True" in path.read_text(encoding="utf-8")]


def test_the_library_prints_nothing_and_configures_no_logging():
    for path in CORE:
        if path.name == "cli.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "logging.basicConfig"), f"{name(path)}, line {node.lineno}"


def test_no_pickle_is_read_anywhere():
    pattern = re.compile(r"\b(torch\.load|pickle\.load|joblib\.load|yaml\.load|yaml\.unsafe_load|eval|exec)\(")
    found = {
        f"{name(path)}: {match.group()}" for path in [*CORE, *UI, *PAGES, *APP] for match in pattern.finditer(path.read_text(encoding="utf-8"))
        if not path.read_text(encoding="utf-8")[: match.start()].endswith(".")
    }  # fmt: skip
    assert found == set()


@pytest.mark.parametrize("path", [*CORE, *PAGES, *UI, *DEMO, *APP], ids=name)
def test_no_file_is_longer_than_the_house_allows(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("path", [*CORE, *PAGES, *UI, *DEMO, *APP], ids=name)
def test_every_file_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", [*CORE, *UI, *DEMO], ids=name)
def test_no_file_is_called_utils_helpers_or_common(path):
    assert path.stem not in ("utils", "helpers", "common", "misc")


def test_every_stage_has_a_test_file():
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    assert set(STAGES) - {"measure"} <= tests
    assert "moments" in tests, "measure is tested in test_moments"


README = ROOT / "README.md"


def test_the_file_map_of_the_readme_names_every_module():
    if not README.exists():
        pytest.skip("README.md is not written yet")
    text = README.read_text(encoding="utf-8")
    assert [name(path) for path in [*CORE, *PAGES, *UI, *DEMO] if not path.name.startswith("__") and path.name not in text] == []


def test_the_readme_names_no_file_that_is_gone():
    if not README.exists():
        pytest.skip("README.md is not written yet")
    text = README.read_text(encoding="utf-8")
    present = {
        path.name
        for folder in ("replaceme_core", "pages", "ui", "demo", "tests", "benchmarks", ".")
        for path in (ROOT / folder).glob("*.py")
    }
    present |= {path.name for path in CORE}
    assert set(re.findall(r"\b([\w]+\.py)\b", text)) <= present


def test_the_table_of_families_in_the_readme_is_that_of_the_library():
    section = README.read_text(encoding="utf-8").split("--markdown -->")[1].split("<!-- families end -->")[0]
    assert section.strip() == markdown_table()
