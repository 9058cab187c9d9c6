"""`crew data ...`: find, profile, convert, decontaminate and synthesise datasets, without any agent or run."""

from __future__ import annotations

import typer

from posttrain_crew.crews import cli_data_convert, cli_data_profile, cli_data_search, cli_data_synthesize

__all__ = ["register"]

data_app = typer.Typer(help="Find, profile, convert, decontaminate and synthesise datasets.", no_args_is_help=True)
for _module in (cli_data_search, cli_data_profile, cli_data_convert, cli_data_synthesize):
    _module.register(data_app)


def register(app: typer.Typer) -> None:
    """Add the group of this module."""
    app.add_typer(data_app, name="data")
