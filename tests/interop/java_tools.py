"""Kafka's own command line tools: their jars, fetched by Maven into a cache, and how to run one."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.interop.shared import run

POMS = Path(__file__).parent / "java"
MARK = "complete"
"""Written last: a folder without it holds what an interrupted download left."""


def jars(pom: str = "pom") -> str:
    """The folder of the jars that POM.xml names: in $NEBULA_JARS, or in the temporary directory; filled on first use."""
    folder = Path(os.environ.get("NEBULA_JARS") or Path(tempfile.gettempdir()) / "nebula-jars") / pom
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (POMS / f"{pom}.xml").read_text()
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mark = folder / MARK
        if not mark.exists() or mark.read_text() != wanted:
            goal = ["dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
            run(["mvn", "-q", "-B", "-f", str(POMS / f"{pom}.xml"), *goal], seconds=300)
            mark.write_text(wanted)
    return str(folder)


def tool(name: str, *arguments: str, given: bytes = b"", expect: int | None = 0) -> tuple[bytes, str]:
    """Run ``org.apache.kafka.tools.NAME``; its output and messages."""
    quick: Sequence[str] = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
    argv = ["java", *quick, "-cp", os.path.join(jars(), "*"), f"org.apache.kafka.tools.{name}", *arguments]
    return run(argv, given, expect=expect)
