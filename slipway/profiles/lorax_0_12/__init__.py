"""What LoRAX 0.12 does with an adapter, as rules.

Each rule names the file of https://github.com/predibase/lorax (commit a7394ba3) that it was read from, below
``server/lorax_server`` where nothing else is said. To add a rule, write a function from ``Evidence`` to hits and put it
into its module's ``RULES``.
"""

from typing import Final

from slipway.profiles.lorax_0_12 import base, config, extras, files, medusa, modules, rank, server, tensors, values
from slipway.rules import ServerProfile

__all__ = ["LORAX_0_12"]

LORAX_0_12: Final = ServerProfile(
    name="lorax-0.12",
    server="LoRAX",
    reference="https://github.com/predibase/lorax, commit a7394ba3, below server/lorax_server unless it says otherwise",
    rules=(
        *files.RULES,
        *config.RULES,
        *medusa.RULES,
        *base.RULES,
        *tensors.RULES,
        *modules.RULES,
        *extras.RULES,
        *rank.RULES,
        *values.RULES,
        *server.RULES,
    ),
)
