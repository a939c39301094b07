"""Results as typed tables: their columns, the paper's values, claims, comparison of runs."""
