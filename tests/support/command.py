"""Run the command line in this process and look at what it left."""

from pathlib import Path

from click.testing import CliRunner, Result

from swaa_convert.cli import cli


def run(*args: str | Path) -> Result:
    """Run `swaa-convert ARGS`."""
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def refused(*args: str | Path, code: int = 1) -> str:
    """Run what must be refused with this exit status; return the one line that says why."""
    result = run(*args)
    assert result.exit_code == code, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, result.stderr
    # Exit 1 says one line and no more; usage errors also say how the command is used.
    assert code == 2 or result.stderr == errors[0] + "\n", result.stderr
    return errors[0].removeprefix("Error: ")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, name to bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
