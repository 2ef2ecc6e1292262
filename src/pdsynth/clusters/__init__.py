"""Clusters: settings of their jobs, and the tasks of a command in jobs of Slurm or on the workers of dask."""
