"""The `paceline` command: finds its sub-commands through entry points and imports only the one that is called.

Every way to fail that is not a bug ends as one sentence on stderr and exit status 2, Ctrl-C as 130. A bug keeps its
traceback and exit status 1.
"""

import ast
import contextlib
import errno
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Any

import click

from paceline.errors import PacelineError
from paceline.logs import FORMATS, LEVELS, configure_logging, mask_secrets
from paceline.settings import (
    ENVIRONMENT_PREFIX,
    quiet_libraries,
    read_configuration,
    unknown_name,
)

ENTRY_POINT_GROUP = "paceline.commands"
STATUS_FAILED = 2
STATUS_INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""
STATUS_BROKEN_PIPE = 141
"""128 + SIGPIPE: whoever read our output has gone, `paceline generate ... | head` for example."""


class CommandError(click.ClickException):
    """A sub-command that cannot be had."""

    exit_code = STATUS_FAILED


@dataclass(slots=True)
class Invocation:
    """What the group tells `main` about this call."""

    traceback: bool = False
    """Show the traceback of every failure."""


class CommandGroup(click.Group):
    """A group whose sub-commands are entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all installed sub-commands."""
        del ctx
        return sorted(_installed())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one sub-command and name its environment variables.

        Raises:
            CommandError: its module cannot be imported.
        """
        entry_point = _installed().get(cmd_name)
        if entry_point is None:
            return None
        command = _load(entry_point)
        _name_variables(command, prefix=f"{ENVIRONMENT_PREFIX}_{cmd_name}")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the sub-command that is called and check its table of the configuration file.

        Raises:
            ConfigError: the sub-command is unknown, or its table has a key it does not know.
        """
        if args and not args[0].startswith("-") and args[0] not in _installed():
            raise unknown_name(args[0], _installed(), what="sub-command")
        name, command, rest = super().resolve_command(ctx, args)
        tables = ctx.default_map or {}
        if command is not None and name is not None and name in tables:
            ctx.default_map = {**tables, name: _options(command, tables[name], table=name)}
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of sub-commands without importing any of them."""
        del ctx
        rows = [(name, short_help(point)) for name, point in sorted(_installed().items())]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _use_configuration(
    ctx: click.Context, param: click.Parameter, value: Path | None
) -> Path | None:
    """Read the configuration file while options are parsed: the sub-command is looked up right after.

    Keys above the first table are options of `paceline` itself.
    """
    del param
    tables = read_configuration(value)
    own = {}
    for name, table in tables.items():
        if isinstance(table, dict):
            if name not in _installed():
                raise unknown_name(name, _installed(), what="configuration file: table")
        elif name in _installed():
            raise _not_a_table(name)
        else:
            own[name] = table
    subs = {name: table for name, table in tables.items() if name not in own}
    ctx.default_map = {**_options(ctx.command, own, table="paceline"), **subs}
    return value


@click.group(
    cls=CommandGroup,
    context_settings={
        "auto_envvar_prefix": ENVIRONMENT_PREFIX,
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 100,
    },
    epilog=(
        "Every option can also be set by an environment variable, PACELINE_<COMMAND>_<OPTION>, or in the configuration "
        "file, in a table named after the sub-command ([orchestrator.serve] for `paceline orchestrator serve`); options of all commands stand above the first table. The command line wins, then the environment, then the file."
    ),
)
@click.version_option(version("paceline"), prog_name="paceline")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_use_configuration,
    is_eager=True,  # before the options that the file may set
    expose_value=False,
    help="Configuration file (TOML). Otherwise ./paceline.toml or ~/.config/paceline/paceline.toml, if there.",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="warning",
    help="Which logs to write to stderr.",
)
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default="text",
    help="How a log line looks: as text for people, or as one JSON object for collectors.",
)
@click.option("-v", "--verbose", is_flag=True, help="The same as --log-level info.")
@click.option("--traceback", is_flag=True, help="Show where in the program a failure came from.")
@click.pass_context
def paceline(
    ctx: click.Context, /, *, log_level: str, log_format: str, verbose: bool, traceback: bool
) -> None:
    """Edge-cloud speculative decoding.

    A small model at the edge drafts, a large one in the cloud verifies; the text is the large one's own.
    """
    ctx.ensure_object(Invocation).traceback = traceback
    level = "info" if verbose and log_level == "warning" else log_level
    configure_logging(level, form=log_format)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit status."""
    quiet_libraries()
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; a sub-command may return its own.

    Args:
        arguments: without the program's name; none takes those of the process.
    """
    invocation = Invocation()
    try:
        status = paceline.main(
            args=None if arguments is None else list(arguments),
            prog_name="paceline",
            standalone_mode=False,
            obj=invocation,
        )
    except BaseException as error:
        if invocation.traceback:
            raise
        failure = explain(error)
        if failure is None:
            raise
        status, sentence = failure
        if sentence:
            click.echo(sentence, err=True)
    return status if isinstance(status, int) else 0


def explain(error: BaseException) -> tuple[int, str] | None:
    """Return exit status and sentence of a failure, or none if it is a bug that needs its traceback."""
    match error:
        case BaseExceptionGroup(exceptions=[*parts]):
            # Tasks fail in groups. The first that can be explained is the cause; one bug makes the group a bug.
            explained = [explain(part) for part in parts]
            return None if None in explained else explained[0]
        case click.exceptions.NoArgsIsHelpError():
            return STATUS_FAILED, error.format_message()
        case click.UsageError(ctx=ctx) if ctx is not None:
            sentence = error.format_message().rstrip(".")
            return STATUS_FAILED, f"{ctx.command_path}: {sentence}. See --help."
        case click.ClickException():
            return STATUS_FAILED, f"paceline: {error.format_message()}"
        case KeyboardInterrupt() | click.Abort():
            return STATUS_INTERRUPTED, ""
        case PacelineError():
            return STATUS_FAILED, f"paceline: {mask_secrets(str(error))}"
        case ModuleNotFoundError(name=str(module)):
            return STATUS_FAILED, f"paceline: {_missing(module)}"
        case OSError():
            return _explain_os_error(error)
    return None


def _explain_os_error(error: OSError) -> tuple[int, str] | None:
    """Return the same for what the system refused; without an address or a file it cannot be told from a bug."""
    match error:
        case BrokenPipeError():
            _silence_stdout()
            return STATUS_BROKEN_PIPE, ""
        case OSError(errno=errno.EADDRINUSE):
            text = error.strerror or str(error)
            return STATUS_FAILED, f"paceline: {text}: choose another port, or 0 for any"
        case OSError(filename=str() | bytes() | os.PathLike()):
            return STATUS_FAILED, f"paceline: {error.filename}: {error.strerror}"
    return None


def short_help(entry_point: EntryPoint) -> str:
    """Return the first sentence of a sub-command's help, read from its source without importing it."""
    with contextlib.suppress(ImportError, OSError, SyntaxError, ValueError):
        specification = importlib.util.find_spec(entry_point.module)
        if specification is not None and specification.origin is not None:
            tree = ast.parse(Path(specification.origin).read_text(encoding="utf-8"))
            for node in tree.body:
                if isinstance(node, ast.FunctionDef) and node.name == entry_point.attr:
                    return (ast.get_docstring(node) or "").partition("\n")[0].rstrip(".")
    return "(not available: its module cannot be read)"


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _load(entry_point: EntryPoint) -> click.Command:
    try:
        command = entry_point.load()
    except ModuleNotFoundError as error:
        raise CommandError(f"`{entry_point.name}`: {_missing(error.name or '')}") from error
    except (ImportError, AttributeError) as error:
        raise CommandError(f"`{entry_point.name}` cannot be loaded: {error}") from error
    if not isinstance(command, click.Command):
        raise CommandError(
            f"`{entry_point.name}`: {entry_point.value} is a {type(command).__name__}, expected a click command"
        )
    return command


def _name_variables(command: click.Command, *, prefix: str) -> None:
    """Name the environment variables of a command's options after what users write, in its sub-commands too."""
    for option, names in _long_names(command):
        # click would name the variable after the Python parameter, which no user has seen.
        option.envvar = option.envvar or f"{prefix}_{names[0]}".replace("-", "_").upper()
    for name, sub in _sub_commands(command).items():
        _name_variables(sub, prefix=f"{prefix}_{name}")


def _options(command: click.Command, values: dict[str, Any], *, table: str) -> dict[str, Any]:
    """Return a table of the configuration file by parameter names; keys are option names, - and _ alike.

    The table of a command that has sub-commands holds their tables.
    """
    known = {name: option for option, names in _long_names(command) for name in names}
    subs = _sub_commands(command)
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key in subs:
            inner = f"{table}.{key}"
            if not isinstance(value, dict):
                raise _not_a_table(inner)
            found[key] = _options(subs[key], value, table=inner)
            continue
        parameter = known.get(key.replace("-", "_"))
        if parameter is None or parameter.name is None:
            names = {name.replace("_", "-") for name in known} | subs.keys()
            raise unknown_name(key, names, what=f"configuration file: [{table}] key")
        # One value of an option that can be repeated needs no list around it; click would take a text apart.
        single = parameter.multiple and not isinstance(value, list)
        found[parameter.name] = [value] if single else value
    return found


def _not_a_table(name: str) -> CommandError:
    return CommandError(
        f"configuration file: {name} must be a table, write [{name}] above its keys"
    )


def _sub_commands(command: click.Command) -> dict[str, click.Command]:
    """Return the sub-commands of a command that has its own, `paceline orchestrator` for example."""
    if isinstance(command, click.Group) and not isinstance(command, CommandGroup):
        return dict(command.commands)
    return {}


def _long_names(command: click.Command) -> list[tuple[click.Option, list[str]]]:
    """Return the options of a command with their long names, written with _."""
    return [
        (option, names)
        for option in command.params
        if isinstance(option, click.Option) and not option.is_eager
        if (
            names := [
                name.removeprefix("--").replace("-", "_")
                for name in (*option.opts, *option.secondary_opts)
                if name.startswith("--")
            ]
        )
    ]


def _missing(module: str) -> str:
    return (
        f"the Python module {module!r} is not installed; install the package that has it, "
        "or install paceline again with all its dependencies: pip install paceline"
    )


def _silence_stdout() -> None:
    """Keep the interpreter from failing again when it flushes at exit."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
