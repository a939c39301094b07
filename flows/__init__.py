"""Prefect flows over the stages of dvc.yaml: the only home of `import prefect`."""
