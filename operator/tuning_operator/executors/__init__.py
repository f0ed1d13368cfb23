"""Where workers run: Jobs in a cluster."""
