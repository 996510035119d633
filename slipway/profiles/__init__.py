"""Server profiles by name. A new profile is a module with its rules and an entry here; callers do not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from slipway.errors import ConfigurationError
from slipway.profiles.lorax_0_12 import LORAX_0_12
from slipway.profiles.peft import PEFT
from slipway.rules import ServerProfile

__all__ = ["DEFAULT_PROFILE", "PROFILES", "find_profile"]

PROFILES: Final[Mapping[str, ServerProfile]] = {profile.name: profile for profile in (LORAX_0_12, PEFT)}

DEFAULT_PROFILE: Final = LORAX_0_12.name


def find_profile(name: str = DEFAULT_PROFILE) -> ServerProfile:
    """Find a server profile.

    Raises:
        ConfigurationError: There is none of that name.
    """
    if name not in PROFILES:
        raise ConfigurationError(f"There is no server profile {name!r}.", fix=f"Use one of: {', '.join(PROFILES)}.")
    return PROFILES[name]
