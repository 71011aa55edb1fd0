"""The configuration of a study, read and checked."""
