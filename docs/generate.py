"""An mkdocs hook: what the code knows better than prose is written into the pages while the documentation is built.

A page of Markdown holds a line such as `<!-- generated: families -->`; `GENERATED` says what stands there afterwards. A line
`<!-- included: demo/README.md -->` becomes that file without its title. So a table never lags behind the code.
mkdocs-click was tried for the commands and left out: with click 8.5 it writes `Sentinel.UNSET` for every default and runs examples together.
"""

import ast
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
PICTURES = "assets/screenshots"
_FOLDERS = ("replaceme_core", "ui", "pages", "demo", "plain", "benchmarks", "tests")
_COLUMNS = 88
"""of a command's help: what a page shows without scrolling"""
_MARK = re.compile(r"^<!-- (generated|included): (\S+) -->$", re.M)


def on_files(files: Any, config: Any) -> Any:
    """The pictures of the pages lie outside docs/, where `make screenshots` puts them: the site gets its own copy."""
    for picture in sorted((ROOT / PICTURES).glob("*.webp")):
        files.append(File.generated(config, f"screenshots/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with its marks filled in, and with links to pictures that lead inside the site."""
    up = "../" * page.file.src_uri.count("/")
    return filled(markdown).replace(f"({up}../{PICTURES}/", f"({up}screenshots/")


def filled(markdown: str) -> str:
    """The text with every mark replaced; an unknown name is an error, so that a page cannot stay empty."""
    return _MARK.sub(lambda mark: GENERATED[mark[2]]() if mark[1] == "generated" else included(mark[2]), markdown)


def included(path: str) -> str:
    """A Markdown file of the project without its title."""
    return re.sub(r"\A# .*\n", "", (ROOT / path).read_text(encoding="utf-8"))


def families() -> str:
    from replaceme_core.models.architecture.family_table import markdown_table

    return markdown_table()


def questions() -> str:
    """The families of the plain suite, with an item of each."""
    from plain.tasks import FAMILIES, items

    lines = ["| family | choices | what it asks | its first item, the right choice in bold |", "|---|---:|---|---|"]
    for family, (_, choices, what) in FAMILIES.items():
        first = items(family)[0]
        shown = " / ".join(f"**{choice}**" if choice == first.right else choice for choice in first.choices)
        lines.append(f"| {family} | {choices} | {what} | {first.question} {shown} |")
    return "\n".join(lines)


def methods() -> str:
    """The methods of a plan, from their records."""
    from replaceme_core.plans.methods import METHODS

    rows = [
        (
            f"`{name}`",
            f"{info.title}{f' ({info.note})' if info.note else ''}",
            info.one_line,
            ", ".join(f"`{key}`" for key in info.takes),
            _speed(info),
        )
        for name, info in METHODS.items()
    ]
    return table(("name", "title", "what it does", "takes", "in the app"), rows)


def _speed(info: Any) -> str:
    return "follows the slider" if info.live else "a job" if info.solver else "a job; runs the model"


def structures() -> str:
    from replaceme_core.solvers import STRUCTURES

    return table(("`structure`", "title", "what T may do"), [(f"`{name}`", *words) for name, words in STRUCTURES.items()])


def criteria() -> str:
    from replaceme_core.selection.criteria import every

    return table(
        ("`criterion`", "title", "what is least at the span that goes"), [(f"`{k}`", c.title, c.one_line) for k, c in every().items()]
    )


def baselines() -> str:
    """The field's methods, each with its paper."""
    from replaceme_core.baselines import BASELINES

    rows = [
        (f"`{b.name}`", b.title, b.kind, b.description, f"[{b.reference}](https://arxiv.org/abs/{b.arxiv})", _notes(b))
        for b in BASELINES.values()
    ]
    return table(("name", "title", "narrows", "what it does", "paper", "notes"), rows)


def _notes(row: Any) -> str:
    return "; ".join(word for word, true in (("trains", row.training), ("stays in memory", not row.plain)) if true)


def commands() -> str:
    """Every subcommand with its help as the terminal prints it, then the names of the public library."""
    from replaceme_core.cli.main import main

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    found = [_help("replaceme", main)]
    for name, target in scripts.items():
        module, _, attribute = target.partition(":")
        if name != "replaceme":
            found.append(_help(name, getattr(import_module(module), attribute)))
    return "\n\n".join(found)


def _help(name: str, command: click.Command, parent: click.Context | None = None) -> str:
    """A heading and the help of a command, and those of its subcommands."""
    context = click.Context(command, parent=parent, info_name=name, terminal_width=_COLUMNS, **command.context_settings)
    level = "###" if parent and parent.parent else "##"
    lines = [f"{level} {context.command_path}\n\n```text\n{command.get_help(context)}\n```"]
    if isinstance(command, click.Group):
        lines += [_help(sub, inner, context) for sub, inner in command.commands.items()]
    return "\n\n".join(lines)


def plan() -> str:
    """Every section of a plan, key by key, from the schema that editors use."""
    from replaceme_core.plans.plan import PruningPlan

    schema = PruningPlan.model_json_schema()
    lines = [_section("The plan", schema)]
    for key, field in schema["properties"].items():
        name = re.search(r"#/\$defs/(\w+)", json.dumps(field))
        lines.append(_section(f"`{key}`", schema["$defs"][name[1]] if name else field))
    return "\n\n".join(lines)


def sweep() -> str:
    """The two sections that a sweep has beside those of a plan."""
    from replaceme_core.plans.sweep_section import Sweep

    defs = Sweep.model_json_schema()["$defs"]
    return "\n\n".join(_section(f"`{key}`", defs[name]) for key, name in (("cuts", "CutsSection"), ("measure", "MeasureSection")))


def _section(title: str, schema: dict[str, Any]) -> str:
    rows = [
        (f"`{key}`", _type(field), "needed" if key in schema.get("required", ()) else _default(field), field.get("description", ""))
        for key, field in schema["properties"].items()
    ]
    about = re.split(r"\n\s*\n", schema.get("description", "").strip())[0]
    return f"### {title}\n\n{about}\n\n" + table(("key", "value", "default", "meaning"), rows)


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    return "empty" if value is None else "see below" if isinstance(value, dict) else f"`{json.dumps(value)}`"


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "anyOf" in field:
        return " or ".join(_type(each) for each in field["anyOf"] if each.get("type") != "null")
    if "$ref" in field:
        return "a section"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "array": "list"}
    return words.get(field.get("type", ""), "") + _range(field)


def _range(field: dict[str, Any]) -> str:
    signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    said = [f"{sign} {field[key]:g}" for key, sign in signs if key in field]
    return f", {', '.join(said)}" if said else ""


def files() -> str:
    """Every module with the first sentence of its docstring, folder by folder; a folder's own docstring stands above its files."""
    lines = []
    for top in _FOLDERS:
        lines.append(f"## {top}/")
        for folder in sorted({path.parent for path in (ROOT / top).rglob("*.py")}):
            rows = list(_modules(folder))
            if rows:
                name = str(folder.relative_to(ROOT))
                about = _about(folder / "__init__.py") if (folder / "__init__.py").exists() else ""
                lines.append(
                    "\n\n".join(part for part in (f"### {name}/" if name != top else "", about, table(("file", "about"), rows)) if part)
                )
    return "\n\n".join(lines)


def _modules(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"`{path.name}`", first_line(path)


def first_line(path: Path) -> str:
    """The first paragraph of a module's docstring, on one line."""
    return re.sub(r"\s+", " ", re.split(r"\n\s*\n", _docstring(path))[0])


def _about(path: Path) -> str:
    """A folder's docstring as Markdown paragraphs; `a -> b` and indented lines are kept as they stand."""
    paragraphs = re.split(r"\n\s*\n", _docstring(path))
    return "\n\n".join(f"```text\n{p}\n```" if re.search(r"^ {2,}|-> | {4}", p, re.M) else p for p in paragraphs)


def _docstring(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return inspect.cleandoc(text.removeprefix("\\b\n"))


def arrows() -> str:
    """The tables of allowed imports that tests/test_house.py holds: names that end in _MAY."""
    source = ast.parse((ROOT / "tests" / "test_house.py").read_text(encoding="utf-8"))
    lines = []
    for node in source.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.endswith("_MAY"):
            rows = [(f"`{folder}`", ", ".join(f"`{each}`" for each in sorted(may))) for folder, may in _literal(node.value).items()]
            lines.append(table(("folder", "may import"), rows))
    return "\n\n".join(lines)


def _literal(node: ast.expr) -> dict[str, Any]:
    """A literal dict in which `set()` is written too."""
    assert isinstance(node, ast.Dict)
    return {
        ast.literal_eval(k): set() if isinstance(v, ast.Call) else ast.literal_eval(v)
        for k, v in zip(node.keys, node.values, strict=True)
        if k
    }


def glossary() -> str:
    """The app's own list, which its pages show as *Words on this page*."""
    from ui.look.glossary import TERMS

    return table(("term", "meaning"), list(TERMS.items()))


def leaderboard() -> str:
    from benchmarks.leaderboard import OUT, full

    return full(OUT)


def real_table() -> str:
    from benchmarks.real_rows import OUT, full

    return full(OUT)


def real_table_400() -> str:
    from benchmarks.real_rows import MORE, full

    return full(MORE)


def real_table_plain() -> str:
    from benchmarks.real_rows import OUT, full

    return full(OUT.with_name("real_table_plain.jsonl"))


def calibration_sets() -> str:
    from benchmarks.calibration_sets import ROWS, full

    return full(ROWS)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; a cell may hold anything."""
    lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


GENERATED: dict[str, Callable[[], str]] = {
    each.__name__: each
    for each in (
        families,
        questions,
        methods,
        structures,
        criteria,
        baselines,
        commands,
        plan,
        sweep,
        files,
        arrows,
        glossary,
        leaderboard,
        real_table,
        real_table_400,
        real_table_plain,
        calibration_sets,
    )
}
"""what a page may ask for by name"""
