"""Small sets drawn in the native layouts, so that every filter runs for real with no download."""
