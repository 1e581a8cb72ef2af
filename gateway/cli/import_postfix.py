"""`policy import-postfix`: a Postfix configuration as a policy."""

from pathlib import Path

import click

from gateway.cli.context import NO, fail, guarded
from gateway.postfix.convert import convert


@click.command("import-postfix")
@click.argument("main_cf", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--into", required=True, type=click.Path(path_type=Path, file_okay=False), help="A new folder for what is made."
)
def policy_import_postfix(main_cf: Path, into: Path) -> None:
    """Translate MAIN_CF and its tables: restrictions to policy files, domains and networks to smarthost.toml.

    What cannot be translated stands in the policy files as comments, and is told here.
    """

    def body() -> int:
        if into.exists() and any(into.iterdir()):
            fail(f"{into}: is not empty")
        made = convert(main_cf)
        for name, text in made.files.items():
            path = into / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for remark in made.remarks:
            click.echo(f"look at: {remark}", err=True)
        click.echo(f"{into}: {len(made.files)} files. Next: smarthost policy check -c {into / 'smarthost.toml'}")
        return 0 if made.files else NO

    guarded(body)
