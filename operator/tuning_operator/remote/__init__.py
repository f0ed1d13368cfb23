"""A cluster's studies from a laptop: what a person may do by their kubeconfig, and nothing that the operator does."""
