"""The command line: the outermost layer, which may start flows. Nothing else imports it.

Each command lives in a module of its own and is imported when it runs, so that `slipway status` does not pay for Prefect.
"""

from __future__ import annotations

import os
import sys

from cyclopts import App, CycloptsError

from slipway import __version__
from slipway.cli.output import fail

__all__ = ["app", "main"]

app = App(
    name="slipway",
    help="Take fine-tuned adapters into production on Predibase and LoRAX, and stop those that should not get there.",
    version=__version__,
    help_format="markdown",
    result_action="return_value",
)

COMMANDS = {
    "inspect": "Pull an adapter and say whether the server would serve it as trained.",
    "fit": "Rewrite an adapter so that the server computes what was trained, and prove it.",
    "release": "Take an adapter to production, or say why not.",
    "evaluate": "Run a suite on a live adapter; promotes nothing.",
    "grade": "Grade recorded outputs against a suite; asks no model.",
    "gate": "Decide on recorded results; asks no model.",
    "status": "Show who is champion where, since when, on what evidence.",
    "history": "Show every release and rollback of an adapter.",
    "resolve": "Print the champion's adapter id, for applications.",
    "rollback": "Give the previous champion its place back, after proving it live.",
    "store": "Show, check and clear the local store of adapters.",
    "sandbox": "Start Predibase and LoRAX on this machine.",
    "rehearse": "The whole journey in the sandbox: promoted, held, refused, rolled back.",
    "doctor": "Check credentials, endpoints, versions and the Prefect server.",
}

for _name, _help in COMMANDS.items():
    app.command(f"slipway.cli.{_name}:{_name}", name=_name, help=_help)


def main() -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:]
    try:
        code = app(arguments, exit_on_error=False, print_error=True)
    except CycloptsError:
        code = 2
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:  # noqa: BLE001  # the last place: everything becomes a message and a code
        code = fail(error, as_json="--json" in arguments)
    sys.exit(code if isinstance(code, int) else 0)
