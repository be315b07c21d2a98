"""A Python function under construction: lines of source, the objects they refer to, and fresh names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Source:
    """Lines of one function's body. What is written is made of schema names and numbers only, never of received bytes."""

    def __init__(self, signature: str) -> None:
        self._lines = [f"def made({signature}):"]
        self._depth = 1
        self._count = 0
        self.names: dict[str, Any] = {}
        """Objects the body refers to."""

    def line(self, text: str) -> None:
        """Add one line at the present depth."""
        self._lines.append("    " * self._depth + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Lines inside `head:`."""
        self.line(head + ":")
        self._depth += 1
        yield
        self._depth -= 1

    def fresh(self) -> str:
        """A variable no other line uses."""
        self._count += 1
        return f"v{self._count}"

    def constant(self, value: Any) -> str:
        """A name for `value`, which is made once, when the function is compiled."""
        self._count += 1
        name = f"k{self._count}"
        self.names[name] = value
        return name

    def text(self) -> str:
        """The source so far, for reading and for errors."""
        return "\n".join(self._lines)

    def compile(self, name: str) -> Any:
        """The function."""
        exec(compile(self.text(), f"<wire {name}>", "exec"), self.names)
        return self.names["made"]
