"""Style is a test: sizes, docstrings, leftovers, paths of one machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "nebula" / "wire" / "schemas"
"""Generated from Kafka's definitions: long by nature, so they do not count in the median."""

# Spelled in parts, so that this file does not find itself.
LEFTOVER = re.compile(
    r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b|Skip" r"Test|skip" r"Test|unittest\.sk" r"ip|\.to" r"do = |\.sk" r"ip = "
)
MACHINE = re.compile(r"/(wo" r"rk|ro" r"ot|ho" r"me)/\w|/t" r"mp/\w")


def sources(*folders: str) -> Iterator[Path]:
    """Every Python file below `folders`."""
    for folder in folders:
        yield from sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines())


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Where each function is, and how many lines it has."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", lines


class TidyTests(SynchronousTestCase):
    """The lines that STYLE draws."""

    def test_files(self) -> None:
        """If this failed, a file would have grown past what one reads at a sitting."""
        sizes = {path: line_count(path) for path in sources("nebula")}
        self.assertEqual([f"{path.relative_to(ROOT)}: {n}" for path, n in sizes.items() if n > 500], [])
        self.assertLessEqual(median(n for path, n in sizes.items() if TABLES not in path.parents), 150)

    def test_functions(self) -> None:
        """If this failed, a function would do more than one thing."""
        sizes = [row for path in sources("nebula") for row in functions(path)]
        self.assertEqual([f"{where}: {n}" for where, n in sizes if n > 70], [])
        self.assertLessEqual(median(n for _where, n in sizes), 8)

    def test_docstrings(self) -> None:
        """If this failed, a module would not say what it is for."""
        silent = [p for p in sources("nebula", "tests") if not ast.get_docstring(ast.parse(p.read_text()))]
        self.assertEqual([str(p.relative_to(ROOT)) for p in silent], [])

    def test_leftovers(self) -> None:
        """If this failed, something unfinished, switched off or true on one machine only would be shipped."""
        found = [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
            for path in sources("nebula", "tests", "twisted", "examples", "benchmarks")
            for number, line in enumerate(path.read_text().splitlines(), 1)
            if LEFTOVER.search(line) or MACHINE.search(line)
        ]
        self.assertEqual(found, [])
