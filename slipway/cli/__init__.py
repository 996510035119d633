"""The command line: the outermost layer, which may start flows. Nothing else imports it.

Each command lives in a module of its own and is imported when it runs, so that `slipway status` does not pay for
Prefect.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from slipway import __version__
from slipway.cli.output import discard_stdout, fail
from slipway.errors import ConfigurationError

__all__ = ["app", "main"]

EXIT_CODES = (
    "Exit codes: 0 yes (promoted, servable, passed), 1 no (held, refused, failed), 2 the request is wrong, 3 it could "
    "not be decided."
)

app = App(
    name="slipway",
    help="Take fine-tuned adapters into production on Predibase and LoRAX, and stop those that should not get there.",
    help_epilogue=EXIT_CODES,
    version=__version__,
    help_format="markdown",
    result_action="return_value",
)

INTERRUPTED = 128 + 2
BROKEN_PIPE = 128 + 13
"""As a shell reports a process that SIGINT or SIGPIPE ended: no answer, and above all not a yes."""

COMMANDS = {
    "inspect": "Pull an adapter and say whether the server would serve it as trained.",
    "fit": "Rewrite an adapter so that the server computes what was trained, and prove it.",
    "release": "Take an adapter to production, or say why not.",
    "evaluate": "Run a suite on a live adapter; promotes nothing.",
    "grade": "Grade recorded outputs against a suite; asks no model.",
    "gate": "Decide on recorded results; asks no model.",
    "report": "Make the HTML report of recorded results, or say where a release's is.",
    "status": "Show who is champion where, since when, on what evidence.",
    "history": "Show every release and rollback of an adapter.",
    "resolve": "Print the champion's adapter id, for applications.",
    "rollback": "Give the previous champion its place back, after proving it live.",
    "store": "Show, check and clear the local store of adapters.",
    "sandbox": "Start Predibase and LoRAX on this machine; `slipway sandbox -- --help` lists its options.",
    "rehearse": "The whole journey in the sandbox: promoted, held, refused, rolled back.",
    "schema": "Print the JSON Schema of gate, suite or target files, for editors.",
    "doctor": "Check credentials, endpoints, versions and the Prefect server.",
}

for _name, _help in COMMANDS.items():
    app.command(f"slipway.cli.{_name}:{_name}", name=_name, help=_help)


def main() -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:]
    app.help_formatter = "default" if sys.stdout.isatty() else "plain"
    try:
        code = _run(arguments)
        sys.stdout.flush()  # while a failure can still be told: at exit Python would print a traceback
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        discard_stdout()
        code = BROKEN_PIPE
    except Exception as error:  # noqa: BLE001  # the last place: everything becomes a message and a code
        code = fail(error, as_json="--json" in arguments)
    sys.exit(code)


def _run(arguments: Sequence[str]) -> int:
    try:
        code = app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        error.verbose = False  # verbose ones name our functions and files
        command = " ".join(["slipway", *(error.command_chain or ())])
        raise ConfigurationError(str(error), fix=f"`{command} --help` shows how it is used.") from error
    return code if isinstance(code, int) else 0
