"""One file per way out. An adapter translates, and nothing else."""
