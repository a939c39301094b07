"""The published methods of Table 1, through Captum: the only home of `import captum`."""
