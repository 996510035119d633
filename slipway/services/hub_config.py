"""Fetch a base model's ``config.json`` from the Hugging Face Hub: a few kilobytes, never the weights."""

from __future__ import annotations

from pathlib import Path

from slipway.errors import SourceError

__all__ = ["fetch_base_config"]


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
    local = "Or give --base a model's directory or a file of base facts."
    try:
        return Path(hf_hub_download(model_id, "config.json", revision=revision))
    except errors.GatedRepoError as error:
        fix = f"Accept its terms at https://huggingface.co/{model_id} and set HF_TOKEN. {local}"
        raise SourceError(f"{what} is gated and this account has no access.", fix=fix) from error
    except errors.RevisionNotFoundError as error:
        raise SourceError(f"{what} does not exist at that revision.", fix="Leave the revision out.") from error
    except errors.RepositoryNotFoundError as error:
        fix = f"Check the spelling; for a private model set HF_TOKEN. {local}"
        raise SourceError(f"{what} is not on the Hub, or not for this account.", fix=fix) from error
    except errors.LocalEntryNotFoundError as error:
        fix = f"Check the network, HF_ENDPOINT and HF_HUB_OFFLINE. {local}"
        raise SourceError(f"{what} cannot be asked for: the Hub is not reached, or fails.", fix=fix) from error
    except errors.EntryNotFoundError as error:
        raise SourceError(f"{what} has no config.json on the Hub.", fix=local) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no")
        raise SourceError(f"{what} cannot be fetched: the Hub answered with status {status}.", fix=local) from error
    except (errors.OfflineModeIsEnabled, OSError) as error:
        fix = f"Check the network, HF_ENDPOINT and HF_HUB_OFFLINE. {local}"
        raise SourceError(f"{what} cannot be asked for: the Hub is not reached, or fails.", fix=fix) from error
