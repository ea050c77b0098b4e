"""The leaves of the segment language: one file per kind of question, each a model and how it becomes SQL."""
