"""Everything that talks to the network, the disk or a database; each module turns foreign errors into ours."""
