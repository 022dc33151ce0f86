"""The rules of the house, read off the source: which folder may import which, no circle, no heavy import at the top, how long a file may be."""

import ast
import re
import sys
from functools import cache
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = sorted((ROOT / "replaceme_core").rglob("*.py"))
PAGES = sorted((ROOT / "pages").glob("*.py"))
UI = sorted((ROOT / "ui").rglob("*.py"))
DEMO = sorted([*(ROOT / "demo").glob("*.py"), *(ROOT / "plain").rglob("*.py")])
APP = [ROOT / "app.py"]
EVERY = [*CORE, *PAGES, *UI, *DEMO, *APP]
LONGEST, MEDIAN = 400, 150
GROUND = {"artifacts", "distribution", "errors", "extras", "figures", "guard", "handle", "healing_report", "memory", "progress", "span"}
"""words and types: what every folder may read"""
CORE_MAY = {
    "cli": {"studies", "pipeline", "feasible", "dry_run", "evaluation", "comparison", "export", "surgery", "selection", "measurement", "calibration", "models", "plans", "storage"},
    "studies": {"pipeline", "baselines", "evaluation", "comparison", "healing", "refit", "surgery", "measurement", "selection", "solvers", "calibration", "models", "plans", "storage"},
    "pipeline": {"feasible", "evaluation", "comparison", "export", "healing", "refit", "surgery", "measurement", "selection", "solvers", "calibration", "models", "plans", "storage"},
    "dry_run": {"feasible", "refit", "measurement", "selection", "plans"},
    "feasible": {"refit", "surgery", "solvers", "models", "plans"},
    "baselines": {"refit", "surgery", "measurement", "solvers", "calibration", "models"},
    "export": {"surgery", "models", "plans", "storage"},
    "evaluation": {"comparison", "models", "plans", "storage"},
    "comparison": {"calibration", "models"},
    "healing": {"surgery", "calibration", "models", "plans", "storage"},
    "refit": {"surgery", "measurement", "calibration", "models", "plans"},
    "surgery": {"models", "plans", "storage"},
    "measurement": {"selection", "calibration", "models", "plans", "storage"},
    "selection": {"solvers", "plans"},
    "solvers": {"plans"},
    "calibration": {"models", "plans", "storage"},
    "models": {"plans", "storage"},
    "plans": set(),
    "storage": set(),
}  # fmt: skip
"""folder (or file) of the library -> what it may import beside the ground; every arrow goes down this list"""


UI_FLOORS = ("frame", "parts", "session", "look")
"""folders of the app beside those of pages, which stand on one floor with the frame"""


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


@pytest.mark.parametrize("package", ["streamlit", "altair", "ui", "pages", "app", "demo", "plain", "tests", "pytest"])
def test_the_library_never_imports(package):
    assert importers(package) == set()


def test_a_page_imports_only_streamlit_ui_and_the_standard_library():
    others = {name(path): roots(path) - set(sys.stdlib_module_names) - {"streamlit", "ui"} for path in [*PAGES, *APP]}
    assert {path: found for path, found in others.items() if found} == {}


def test_the_ui_imports_no_page_and_no_heavy_library_at_its_top_level():
    assert [name(path) for path in UI if {"pages", "app", "lm_eval", "datasets"} & roots(path)] == []
    tops = [(name(path), module) for path in UI for module, top in imports(path) if top]
    assert [(path, module) for path, module in tops if module.split(".")[0] == "transformers"] == []


@pytest.mark.parametrize("folder", ["solvers", "selection", "plans", "storage", "ground"])
def test_the_numeric_core_never_imports_transformers(folder):
    paths = [path for path in CORE if floor(dotted(path)) == folder]
    assert paths
    assert importers("transformers", [*paths, ROOT / "replaceme_core/measurement/moments.py"]) == set()


def floor(module: str) -> str:
    """The folder of a module of ours, 'ground' for the library's words and types."""
    parts = module.split(".")
    second = parts[1] if len(parts) > 1 else ""
    return "ground" if parts[0] == "replaceme_core" and second in GROUND else second


def edges(paths: list[Path], package: str) -> dict[tuple[str, str], set[str]]:
    """(folder, folder) -> the imports that make that arrow, within one package."""
    found: dict[tuple[str, str], set[str]] = {}
    for path in paths:
        here = floor(dotted(path))
        for module in ours(path):
            there = floor(module)
            if module.split(".")[0] == package and there != here:
                found.setdefault((here, there), set()).add(f"{name(path)} imports {module}")
    return found


@cache
def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def ours(path: Path) -> frozenset[str]:
    """The modules of ours that a file imports, TYPE_CHECKING and functions included; a package's face counts as the package."""
    modules = {dotted(each) for each in [*CORE, *UI]}
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            found |= inside if len(inside) == len(node.names) else inside | {str(node.module)}
    return frozenset(found & modules - {dotted(path)})


def circles(paths: list[Path]) -> list[list[str]]:
    """Groups of files that import one another in a circle (strongly connected components of more than one file)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number = {dotted(path): i for i, path in enumerate(paths)}
    arrows = [(number[dotted(path)], number[m]) for path in paths for m in ours(path) if m in number]
    rows, columns = zip(*arrows, strict=True)
    graph = coo_array(([1] * len(arrows), (rows, columns)), shape=(len(paths), len(paths)))
    _, labels = connected_components(graph, connection="strong")
    groups: dict[int, list[str]] = {}
    for path, label in zip(paths, labels, strict=True):
        groups.setdefault(int(label), []).append(name(path))
    return [sorted(group) for group in groups.values() if len(group) > 1]


def test_the_arrows_between_the_folders_of_the_library_are_those_of_the_table():
    wrong = {arrow: made for arrow, made in edges(CORE, "replaceme_core").items() if arrow[0] not in ("ground", "__main__", "")}
    assert {a: m for a, m in wrong.items() if a[1] not in CORE_MAY[a[0]] | {"ground", ""}} == {}
    assert {a[1] for a in edges(CORE, "replaceme_core") if a[0] == "ground"} == set()


def test_the_table_goes_down_only_and_holds_no_arrow_that_nobody_uses():
    order = list(CORE_MAY)
    assert [(a, b) for a, below in CORE_MAY.items() for b in below if order.index(b) <= order.index(a)] == []
    used = set(edges(CORE, "replaceme_core"))
    assert [(a, b) for a, below in CORE_MAY.items() for b in below if (a, b) not in used] == []


def test_no_files_import_one_another_in_a_circle():
    assert circles([*CORE, *UI]) == []


def test_the_folders_of_the_app_import_downwards_and_no_page_another():
    """frame and the folders of pages -> parts -> session -> look; frame draws what all pages have, and reads none of them."""
    folders = {path.parent.name for path in UI if path.parent.name != "ui"}
    pages = folders - set(UI_FLOORS)
    assert {"blocks", "fit", "compare"} <= pages
    below = {folder: set(UI_FLOORS[at + 1 :]) for at, folder in enumerate(UI_FLOORS)} | {key: set(UI_FLOORS[1:]) for key in pages}
    assert {arrow: made for arrow, made in edges(UI, "ui").items() if arrow[0] and arrow[1] not in below[arrow[0]]} == {}


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


def test_only_the_command_line_knows_click_and_tqdm():
    others = [path for path in CORE if floor(dotted(path)) not in ("cli", "__main__")]
    assert [name(path) for path in others if {"click", "tqdm"} & roots(path)] == []


def test_hooks_are_registered_in_capture_and_resume_alone():
    pattern = re.compile(r"register_(full_)?(forward|backward|module)\w*hook")
    assert {name(path) for path in [*CORE, *UI, *PAGES] if pattern.search(path.read_text(encoding="utf-8"))} == {
        "replaceme_core/models/running/capture.py",
        "replaceme_core/models/running/resume.py",
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
        if path == ROOT / "replaceme_core/cli/main.py":
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


def test_no_file_is_longer_than_the_house_allows():
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in EVERY}
    assert {path: length for path, length in lengths.items() if length > LONGEST} == {}


def test_every_file_says_what_it_is_for():
    assert [name(path) for path in EVERY if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_no_file_is_called_utils_helpers_or_common():
    assert [name(path) for path in [*CORE, *UI, *DEMO] if path.stem in ("utils", "helpers", "common", "misc")] == []


def test_half_of_the_files_are_shorter_than_a_screen_or_two():
    assert median(len(path.read_text(encoding="utf-8").splitlines()) for path in [*CORE, *UI, *PAGES]) < MEDIAN


def test_the_tests_mirror_the_folders():
    tested = {path.parent.name for path in (ROOT / "tests" / "core").rglob("test_*.py")}
    assert {folder.name for folder in (ROOT / "replaceme_core").iterdir() if (folder / "__init__.py").exists()} <= tested
