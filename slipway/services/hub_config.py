"""Fetch a base model's ``config.json`` from the Hugging Face Hub: a few kilobytes, never the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from slipway.errors import SourceError

__all__ = ["fetch_base_config"]

_LOCAL: Final = "Or give --base a model's directory or a file of base facts."


def fetch_base_config(model_id: str, revision: str | None = None) -> Path:
    """Download ``config.json`` into the Hub's own cache, or find it there.

    ``HF_TOKEN``, ``HF_ENDPOINT``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` are honoured by the library.

    Args:
        model_id: ``ORG/NAME``.
        revision: Branch, tag or commit; the default branch if None.

    Raises:
        SourceError: The Hub does not give it; the error says whether the model, the access, the revision or the
            connection is missing.
    """
    from huggingface_hub import errors, hf_hub_download  # noqa: PLC0415  # a third of a second, for one kind of base

    what = f"The base model {model_id}" + (f" at {revision}" if revision else "")
    try:
        return Path(hf_hub_download(model_id, "config.json", revision=revision))
    except errors.HFValidationError as error:
        raise SourceError(f"{what} is not named as the Hub names models.", fix=_LOCAL) from error
    except errors.GatedRepoError as error:
        fix = f"Accept its terms at https://huggingface.co/{model_id} and set HF_TOKEN. {_LOCAL}"
        raise SourceError(f"{what} is gated and this account has no access.", fix=fix) from error
    except errors.RevisionNotFoundError as error:
        raise SourceError(f"{what} does not exist at that revision.", fix="Leave the revision out.") from error
    except errors.RepositoryNotFoundError as error:
        fix = f"Check the spelling; for a private model set HF_TOKEN. {_LOCAL}"
        raise SourceError(f"{what} is not on the Hub, or not for this account.", fix=fix) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _unreachable(what, error.__cause__) from error
    except errors.EntryNotFoundError as error:
        raise SourceError(f"{what} has no config.json on the Hub.", fix=_LOCAL) from error
    except (errors.HfHubHTTPError, OSError) as error:
        raise _unreachable(what, error) from error


def _unreachable(what: str, cause: BaseException | None) -> SourceError:
    """Tell a Hub that answers with an error from one that does not answer; the library wraps both alike."""
    status = getattr(getattr(cause, "response", None), "status_code", None)
    answer = f"the Hub answers with status {status}" if status else "the Hub is not reached"
    return SourceError(
        f"{what} cannot be fetched: {answer}.", fix=f"Check the network, HF_ENDPOINT and HF_HUB_OFFLINE. {_LOCAL}"
    )
