"""What LoRAX 0.12 does with an adapter, as rules.

Each rule names the file of https://github.com/predibase/lorax (commit a7394ba3) that it was read from, below
``server/lorax_server``. To add a rule, write a function from ``Evidence`` to findings and put it into its module's
``RULES``.
"""

from typing import Final

from slipway.findings import ServerProfile
from slipway.profiles.lorax_0_12 import base, config, files, tensors, values

__all__ = ["LORAX_0_12"]

LORAX_0_12: Final = ServerProfile(
    name="lorax-0.12", rules=(*files.RULES, *config.RULES, *base.RULES, *tensors.RULES, *values.RULES)
)
