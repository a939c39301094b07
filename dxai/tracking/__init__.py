"""MLflow: runs, provenance, reproduction."""
