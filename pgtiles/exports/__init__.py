"""Tiles as files, for programs that read nothing else."""
