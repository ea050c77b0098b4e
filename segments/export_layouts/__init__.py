"""Layouts of lists for advertising platforms, one file each."""
