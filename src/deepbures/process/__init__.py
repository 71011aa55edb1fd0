"""The process that a job runs in: environment, kernel, progress, files of the workflow."""
