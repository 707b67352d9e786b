"""What the papers say is true: the tree, the commands, the recipes, the line lengths of modules."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from hilum.cli import _parser
from hilum.config import built_in_recipes, read_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted((ROOT / "src" / "hilum").rglob("*.py"))


def test_readme_s_tree_is_the_tree() -> None:
    block = README.split("src/hilum/\n", 1)[1].split("```", 1)[0]
    told = {m.group(1).rstrip("/") for m in re.finditer(r"^  ([\w.]+/?)\s", block, re.M)}
    there = {p.name for p in (ROOT / "src" / "hilum").iterdir() if not p.name.startswith(("_", "."))}
    assert told == there


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            lines = [line.split("#")[0].strip() for line in block.splitlines() if line.startswith("hilum ")]
            found += [(page.name, line) for line in lines]
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_in_the_papers_is_one(page: str, line: str) -> None:
    options = _parser().parse_args(shlex.split(line)[1:])
    assert hasattr(options, "verb"), (page, line)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page, target)


def test_recipes_are_named_after_their_file_and_described() -> None:
    for name, path in built_in_recipes().items():
        recipe = read_recipe(path)
        assert recipe.name == name and recipe.description


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_modules_are_short_typed_and_told(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(tree)
    long = [x.name for x in ast.walk(tree) if isinstance(x, ast.FunctionDef) and _code_lines(x) > 60]
    assert not long, long
    assert module.parent.name == "cli" or "print" not in {
        node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def _code_lines(function: ast.FunctionDef) -> int:
    """Lines without the docstring, which is as long as it has to be."""
    return (function.end_lineno or 0) - function.lineno - len((ast.get_docstring(function) or "").splitlines())
