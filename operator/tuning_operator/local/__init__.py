"""A study without a cluster: its folder, its database, its workers as processes, and what a person sees of it."""
