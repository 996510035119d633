"""One thin Prefect task per step of a release: options, logging, one call into ``slipway``, artifacts."""
