"""`nebula`: the entry point. Imports what a command needs only when it runs, so that --help stays quick."""

from __future__ import annotations

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nebula", prog_name="nebula")
def main() -> None:
    """Nebula: a distributed event-streaming server that speaks Apache Kafka's wire protocol."""


@main.command()
@click.option("--records", default=20_000, show_default=True, type=click.IntRange(100, 10_000_000), help="How many.")
@click.option("--keep", is_flag=True, help="Leave the cluster running until Ctrl-C.")
@click.option("--any-port", is_flag=True, help="Use free ports instead of 5001 to 5003 and their 6000s and 7000s.")
def demo(records: int, keep: bool, any_port: bool) -> None:
    """A real three-node cluster: publish, kill -9 the leader, verify that nothing was lost."""
    from nebula.cli.demo import run

    raise SystemExit(run(records, keep, any_port))
