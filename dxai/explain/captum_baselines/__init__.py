"""Published methods of Table 1 through Captum, which is imported nowhere else."""
