"""The charts server: a page for each study behind a signed link. It reads the database and nothing else."""
